"""Learning the target (which knows the forget set) and the oracles (which never saw it)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from erulab.data.rows import Row
from erulab.models.dropout import disable_dropout
from erulab.models.loading import save_folder
from erulab.options import TargetOptions
from erulab.reporting.progress import progress
from erulab.roles import seeds_after_first
from erulab.stages.cache import CHECKPOINTS, Product
from erulab.stages.context import Context
from erulab.training.checkpoints import Checkpoints
from erulab.training.encode_rows import content_hash, encode_exposed
from erulab.training.finetune import FinetuneOptions, assemble_finetuning
from erulab.training.loop import train

VERSION = 1  # of this stage's results: a change makes every target anew
KIND = "learned"
# Options of `target` that change how, or how many, models are learned, but none of them.
NOT_LEARNED_FROM = ("micro_batch", "oracle_seeds")


def learned_rows(context: Context, role: str) -> Sequence[Row]:
    """Returns the rows that the "target" or an oracle learns; data sets on pretrained models' knowledge have none."""
    return context.benchmark.target_rows if role == "target" else context.benchmark.oracle_rows


def learn(context: Context, role: str) -> Product:
    """Fine-tunes the base model on the rows of the "target" or an oracle, unless the cache has the result.

    Args:
        role: "target", "oracle", "oracle@2", ...; each further oracle has the next seed.
    """
    depends_on = learning_depends_on(context, role)
    return context.cache.produce(
        KIND,
        depends_on,
        lambda folder: _train_on_rows(context, role, depends_on, folder),
        rerun=context.config.rerun,
    )


def find_learned(context: Context, role: str) -> Product | None:
    """Finds the target or an oracle that an earlier run learned; reads no base model if there are no rows to learn."""
    return context.cache.find(KIND, learning_depends_on(context, role)) if learned_rows(context, role) else None


def learning_depends_on(context: Context, role: str) -> dict[str, Any]:
    """Returns all that the learned weights depend on: rows by their token ids and label masks, never by a path."""
    settings = {k: v for k, v in asdict(_own_options(context, role)).items() if k not in NOT_LEARNED_FROM}
    rows = encode_exposed(context.encoder, learned_rows(context, role))
    return {
        "stage": "learn",
        "version": VERSION,
        "base": context.source.identity(context.data.raw),
        "chat": context.chat.identity(),
        "rows": content_hash(rows),
        "target": settings,
        "precision": context.config.trainer.precision,
    }


def _own_options(context: Context, role: str) -> TargetOptions:
    """Returns the options of `target` with the seed of one model."""
    options: TargetOptions = context.config.target
    return replace(options, seed=options.seed + seeds_after_first(role))


def _train_on_rows(context: Context, role: str, depends_on: dict[str, Any], folder: Path) -> None:
    options = _own_options(context, role)
    trainer, ranks = context.config.trainer, context.ranks
    loaded = context.loader.load_base(context.data.raw, options.seed)
    rows = encode_exposed(context.encoder, learned_rows(context, role))
    engine, objective, loop = assemble_finetuning(
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
            precision=trainer.precision,
        ),
        context.config.engine,
        ranks,
    )
    if trainer.checkpointing:
        loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    disable_dropout(loaded.model)
    loaded.model.train()
    checkpoints = Checkpoints(folder / CHECKPOINTS, depends_on, ranks)
    loop = replace(loop, save_every=trainer.save_every)
    with progress(f"learning the {role}", loop.steps, enabled=ranks.first) as bar:
        for step, metrics in train(engine, objective, loop, ranks, checkpoints, context.stop):
            bar.update(step + 1, metrics)
            context.tracker.log_stage(role, step, metrics)
    save_folder(loaded, folder / "model", engine.weights(), write=ranks.first)
