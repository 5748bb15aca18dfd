"""Fine-tuning on rows: how target and oracle learn, and how a relearning attacker does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erulab.models.loaded import LoadedModel
from erulab.options import EngineOptions, Precision, Schedule
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded
from erulab.training.batches import Split, total_steps
from erulab.training.engine import Engine
from erulab.training.engines import build_engine
from erulab.training.loop import LoopOptions
from erulab.training.objective import FinetuneObjective


@dataclass(frozen=True)
class FinetuneOptions:
    lr: float
    epochs: float
    global_batch: int
    split: Split
    weight_decay: float
    warmup: float
    schedule: Schedule
    clip: float
    seed: int
    precision: Precision = Precision.auto
    steps: int | None = None


def finetuning(
    subject: LoadedModel,
    rows: Sequence[Encoded],
    options: FinetuneOptions,
    engine_options: EngineOptions,
    ranks: Ranks,
) -> tuple[Engine, FinetuneObjective, LoopOptions]:
    """What `loop.train` needs to train the subject's model on these rows by mean token NLL."""
    policy = subject.policy
    engine = build_engine(
        policy,
        engine_options,
        ranks,
        weight_decay=options.weight_decay,
        clip=options.clip,
        precision=options.precision,
    )
    objective = FinetuneObjective(
        rows,
        global_batch=options.global_batch,
        split=options.split,
        seed=options.seed,
        pad_id=subject.pad_id,
        ranks=ranks,
        device=policy.device,
    )
    steps = total_steps(len(rows), options.epochs, options.global_batch, options.steps)
    return engine, objective, LoopOptions(options.lr, steps, options.warmup, options.schedule, options.global_batch)
