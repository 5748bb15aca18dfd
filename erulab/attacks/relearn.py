"""Relearning: fine-tune on some rows and see whether the other forgotten facts come back with them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from erulab.attacks.base import Attack, Attempt, Lab, Repeat, Setting, forget_suites
from erulab.attacks.halves import validation_half
from erulab.attacks.relearn_rows import RelearnRows, Source, Split, Unit
from erulab.data.rows import Benchmark, Suite
from erulab.data.stored_rows import hash_file
from erulab.errors import DataError
from erulab.options import Schedule, epochs, not_negative, positive, require
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.models.loaded import LoadedModel


@dataclass
class RelearnOptions:
    """Full fine-tuning by default; `attack=relearn_lucki` is Lucki et al. 2024 (LoRA). Each of `lr` at each of `points`
    is an attempt; where there are several the validation half of the scored facts chooses for each model."""

    name: str = "relearn"
    samples: Optional[list[int]] = None  # rows trained on, each a setting; null: all there are
    source: Source = Source.forget
    texts: Optional[str] = None  # source=unrelated: a file of texts in place of the data set's rows that nobody learned
    mixed: bool = False  # with as many retain rows beside them
    split: Split = Split.disjoint
    by: Unit = Unit.fact
    lr: list[float] = field(default_factory=lambda: [2e-4])  # not trainer.lr: a timid trainer would face a timid attack
    points: int = 1  # steps, evenly spaced, after which a model is scored: a learning curve; 1: the last one only
    epochs: float = 3
    steps: Optional[int] = None  # wins over epochs
    batch: int = 8
    warmup: float = 0.05
    schedule: Schedule = Schedule.linear
    lora_rank: int = 0  # 0: all weights
    lora_alpha: int = 16
    repeats: int = 3  # runs with other splits and orders; of two runs each relearns what the other is scored on

    def __post_init__(self) -> None:
        if self.samples is not None:
            counts = bool(self.samples) and min(self.samples) >= 0
            require(counts, "samples", "a list of row counts, such as [10,100]", self.samples)
        unrelated = self.source is Source.unrelated
        require(unrelated or self.texts is None, "texts", "null where source is not unrelated", self.texts)
        require(self.source is not Source.retain or not self.mixed, "mixed", "false where source is retain", self.mixed)
        rates = bool(self.lr) and all(math.isfinite(lr) and lr >= 0 for lr in self.lr)
        require(rates and len(set(self.lr)) == len(self.lr), "lr", "a list of rates >= 0, such as [1e-4,1e-3]", self.lr)
        positive("points", self.points)
        epochs("epochs", self.epochs)
        positive("steps", self.steps)
        positive("batch", self.batch)
        require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        not_negative("lora_rank", self.lora_rank)
        positive("lora_alpha", self.lora_alpha)
        positive("repeats", self.repeats)


@attacks.register(
    "relearn", RelearnOptions, paper="Lucki et al. 2024, arXiv:2409.18025; Deeb & Roger, arXiv:2410.08827"
)
class Relearn(Attack):
    """Fine-tuning on half of the forgotten facts; the other half is scored, in every phrasing."""

    # A file of texts counts by what it holds, which the setting tells.
    spans = ("samples", "repeats", "texts")
    changes_weights = True
    alike = False  # how a model is best retrained is its own: METHODS.md section 7, the oracle included

    def __init__(self, options: RelearnOptions) -> None:
        self.options = o = options
        self.repeats = o.repeats
        self._rows = RelearnRows(o.source, o.split, o.by, o.mixed, o.texts)

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        o = self.options
        self._rows.check(benchmark, seed)
        self._check_choice(benchmark, seed)
        available = min(self._rows.available(benchmark, Repeat(seed, i)) for i in range(self.repeats))
        samples = [available] if o.samples is None else o.samples
        limits = [f"attack.relearn.split={o.split.value}"] * (o.source is Source.forget)
        limits += ["attack.relearn.mixed=true: a retain row beside each"] * o.mixed
        why = f" ({', '.join(limits)})" if limits else ""
        for count in samples:
            if count > available:
                raise DataError(
                    f"attack.relearn.samples={count}, but {available} {o.source.value} rows are there to train on"
                    f"{why}; type attack.relearn.samples=[{available}]"
                )
        shared: Setting = {"source": o.source.value}
        if o.texts is not None:
            shared["texts"] = hash_file(Path(o.texts))[:10]
        if o.source is Source.forget:
            shared["split"] = o.split.value
        if self._rows.disjoint:
            shared["by"] = o.by.value
        if o.mixed:
            shared["mixed"] = True
        # Where there are several, `chosen` tells which.
        shared["lr"] = o.lr[0] if len(o.lr) == 1 else o.lr
        if o.points > 1:
            shared["points"] = o.points
        return [{"samples": n, **shared, "lora_rank": o.lora_rank} for n in samples]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        return self._rows.scored(benchmark, repeat)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        o, taken = self.options, 0
        rows = self._rows.trained(lab.benchmark, lab.repeat, setting["samples"])
        for lr in o.lr:
            step = 0
            trained = lab.finetune(
                subject.copy(),
                rows,
                lr=lr,
                epochs=o.epochs,
                steps=o.steps,
                batch=o.batch,
                warmup=o.warmup,
                schedule=o.schedule,
                lora_rank=o.lora_rank,
                lora_alpha=o.lora_alpha,
                points=o.points,
            )
            for step, model in trained:
                chosen: Setting = {"lr": lr} if len(o.lr) > 1 else {}
                if o.points > 1:
                    chosen["steps"] = step
                yield Attempt(chosen, partial(lab.score, model), model, taken + step)
            taken += step

    def _check_choice(self, benchmark: Benchmark, seed: int) -> None:
        """Where several attempts are made, every repeat must score validation facts and others.

        Raises:
            DataError
        """
        if len(self.options.lr) == 1 and self.options.points == 1:
            return
        validation = validation_half(benchmark, seed)
        every = {row.fact_id for suite in forget_suites(benchmark) for row in suite.rows}
        for number in range(self.repeats):
            suites = self._rows.scored(benchmark, Repeat(seed, number))
            facts = {row.fact_id for suite in suites for row in suite.rows}
            if not facts & validation or not facts - validation:
                raise DataError(
                    "attack.relearn: of several learning rates or points one half of the scored facts chooses and the "
                    f"other is reported, and too few of {len(every)} facts are scored (attack.relearn.split="
                    f"{self.options.split.value}); type attack.relearn.lr=[{self.options.lr[0]:g}] "
                    "attack.relearn.points=1"
                )
