"""Attacks on copies of target, unlearned model and oracle, and the lab that attackers train in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erulab.attacks import stage
from erulab.cache import Product
from erulab.console import announce
from erulab.data.rows import Benchmark, Row
from erulab.evaluation.evaluate import RowScore
from erulab.models.loaded import LoadedModel
from erulab.models.lora import merged, with_lora
from erulab.models.policy import without_dropout
from erulab.options import NOT_IN_SCORES, EngineName, EngineOptions, Schedule
from erulab.ranks import Ranks
from erulab.registry import attacks
from erulab.stages.context import Context, ModelRef
from erulab.training.finetune import FinetuneOptions, finetuning
from erulab.training.loop import train

VERSION = 1  # of what this stage computes: a change attacks every model anew


class TrainingLab:
    """Where attackers train: one process, since whole attack jobs are dealt over the ranks."""

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def benchmark(self) -> Benchmark:
        return self._context.data.measured

    @property
    def seed(self) -> int:
        return self._context.config.seed

    def finetune(
        self, subject: LoadedModel, rows: Sequence[Row], *, lr: float, epochs: float, steps: int | None,
        batch: int, warmup: float, schedule: Schedule, lora_rank: int, lora_alpha: int, seed: int,
    ) -> LoadedModel:  # fmt: skip
        """The subject, trained on the rows (in place, or through merged LoRA weights); same bits for the same seed."""
        if not rows or lr == 0:
            return subject
        subject = with_lora(subject, rank=lora_rank, alpha=lora_alpha, seed=seed) if lora_rank else subject
        without_dropout(subject.model)
        batch = min(batch, len(rows))
        encoded = self._context.encoder_of(subject.chat).rows(rows)
        options = FinetuneOptions(
            lr=lr, epochs=epochs, global_batch=batch, split=self._context.split(None), weight_decay=0.0, warmup=warmup,
            schedule=schedule, clip=1.0, seed=seed, precision=self._context.config.trainer.precision, steps=steps,
        )  # fmt: skip
        engine, objective, loop = finetuning(subject, encoded, options, EngineOptions(EngineName.local), Ranks())
        subject.model.train()
        for _ in train(engine, objective, loop, Ranks()):
            self._context.stop.check()
        subject.model.eval()
        return merged(subject) if lora_rank else subject


def check(context: Context) -> None:
    """Whether every attack can be run and judged, before anything is trained.

    Raises:
        DataError: one cannot, on this benchmark.
    """
    config = context.config
    built = {name: attacks.build(options) for name, options in config.attack.items()}
    stage.check(built, context.data.measured, config.seed, config.evaluation)


def attack(
    context: Context, refs: dict[str, ModelRef], evaluated: dict[str, list[RowScore]] | None
) -> tuple[list[dict[str, Any]], list[Product]]:
    """attacks.json's rows: one attack after another, each kept under the models' keys and its own options.

    Args:
        evaluated: the models' row scores, where this run has them.
    """
    config = context.config
    evaluation = {k: v for k, v in asdict(config.evaluation).items() if k not in (*NOT_IN_SCORES, "compat")}
    rows: list[dict[str, Any]] = []
    products = []
    for name, options in config.attack.items():
        depends_on = {
            "stage": "attack", "version": VERSION, "attack": asdict(options), "seed": config.seed,
            "code": attacks[name].code,
            "models": {role: ref.key for role, ref in refs.items()}, "chat": context.chat.identity(),
            "data": context.data_identity, "precision": config.trainer.precision,
            "evaluation": evaluation,
        }  # fmt: skip

        def make(folder: Path, name: str = name, options: Any = options) -> None:
            if context.ranks.first:
                announce(f"attacking target, unlearned model and oracle: {name}")
            models = {role: context.load(ref) for role, ref in refs.items()}
            made = stage.run_attacks(
                {name: attacks.build(options)}, models, context.data.measured, TrainingLab(context),
                config.evaluation, context.ranks, evaluated,
            )  # fmt: skip
            if context.ranks.first:
                (folder / "attacks.json").write_text(json.dumps(made))

        product = context.cache.produce("attacked", depends_on, make, rerun=config.rerun)
        rows.extend(json.loads((product.folder / "attacks.json").read_text()))
        products.append(product)
    return rows, products
