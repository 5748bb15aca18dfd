"""Learning the target (knows the forget set) and the oracle (never saw it)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from erulab.data.rows import Row
from erulab.errors import DataError
from erulab.models.loading import save_folder
from erulab.models.policy import without_dropout
from erulab.options import TargetOptions
from erulab.reporting.console import progress
from erulab.stages.cache import Product
from erulab.stages.context import Context
from erulab.training.checkpoints import FORMAT, Checkpoints
from erulab.training.encode_rows import content_hash, encode_exposed
from erulab.training.finetune import FinetuneOptions, finetuning
from erulab.training.loop import train

log = logging.getLogger(__name__)

VERSION = 1  # of what this stage computes: a change makes every target anew


def check(context: Context, part: str) -> None:
    """Whether the data set has what a target or oracle would learn. One of a pretrained model's knowledge has not.

    Raises:
        DataError: it has not; says what to name in its place.
    """
    if _rows(context, part):
        return
    lacks = f"data set {context.benchmark.name} has no rows for the {part} to learn{context.benchmark.lacking}"
    if part == "target":
        raise DataError(f"{lacks}; name the model with model.target=FOLDER_OR_HUB_ID")
    raise DataError(
        f"{lacks}; leave out what needs one (stages oracle and attack, method=retrain): type "
        "stages=[unlearn,evaluate,report], or name one with model.oracle=FOLDER_OR_HUB_ID"
    )


def learn(context: Context, part: str) -> Product:
    """The base model fine-tuned on `benchmark.target_rows` or `benchmark.oracle_rows`."""
    return context.cache.produce(
        "learned", depends_on(context, part), lambda folder: _learn(context, part, folder), rerun=context.config.rerun
    )


def depends_on(context: Context, part: str) -> dict[str, Any]:
    """Never the rows' files or paths: their token ids and label masks."""
    settings = {k: v for k, v in asdict(context.config.target).items() if k != "micro_batch"}
    rows = encode_exposed(context.encoder, _rows(context, part))
    return {
        "stage": "learn",
        "version": VERSION,
        **context.base_identity,
        "rows": content_hash(rows),
        "target": settings,
        "precision": context.config.trainer.precision,
    }


def find(context: Context, part: str) -> Product | None:
    """The product if an earlier run made it; the base model is not looked at where nothing would be learned."""
    return context.cache.find("learned", depends_on(context, part)) if _rows(context, part) else None


def _rows(context: Context, part: str) -> Sequence[Row]:
    return context.benchmark.target_rows if part == "target" else context.benchmark.oracle_rows


def _learn(context: Context, part: str, folder: Path) -> None:
    options: TargetOptions = context.config.target
    loaded = context.load_base(options.seed)
    rows = encode_exposed(context.encoder, _rows(context, part))
    engine, objective, loop = finetuning(
        loaded,
        rows,
        FinetuneOptions(
            lr=options.lr,
            epochs=options.epochs,
            global_batch=options.global_batch,
            split=context.split(options.micro_batch),
            weight_decay=options.weight_decay,
            warmup=options.warmup,
            schedule=options.schedule,
            clip=options.clip,
            seed=options.seed,
            precision=context.config.trainer.precision,
        ),
        context.config.engine,
        context.ranks,
    )
    trainer = context.config.trainer
    if trainer.checkpointing:
        loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    without_dropout(loaded.model)
    loaded.model.train()
    ranks = context.ranks
    checkpoints = Checkpoints(folder / "checkpoints", FORMAT, ranks)
    loop = replace(loop, save_every=trainer.save_every)
    with progress(f"learning the {part}", loop.steps, enabled=ranks.first) as bar:
        for step, metrics in train(engine, objective, loop, ranks, checkpoints, context.stop):
            bar.update(step + 1, metrics)
            context.tracker.log_stage(part, step, metrics)
    save_folder(loaded, folder / "model", engine.weights(), write=ranks.first)
    checkpoints.clear()
