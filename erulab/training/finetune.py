"""Fine-tuning on rows: how target, oracle and relearning attacks learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erulab.models.loaded import LoadedModel
from erulab.options import EngineOptions, OptimizerName, Precision, Schedule
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded
from erulab.training.batches import Split, total_steps
from erulab.training.engine import Engine
from erulab.training.engines import build_engine
from erulab.training.loop import LoopOptions
from erulab.training.objective import BatchPlan, FinetuneObjective


@dataclass(frozen=True)
class FinetuneOptions:
    """Settings of one fine-tuning; `steps` wins over `epochs`."""

    lr: float
    epochs: float
    global_batch: int  # rows per step
    split: Split
    weight_decay: float
    warmup: float  # share of the steps
    schedule: Schedule
    clip: float  # gradient norm; 0: no clipping
    seed: int
    precision: Precision = Precision.auto
    steps: int | None = None
    optimizer: OptimizerName = OptimizerName.adamw


def assemble_finetuning(
    subject: LoadedModel,
    rows: Sequence[Encoded],
    options: FinetuneOptions,
    engine_options: EngineOptions,
    ranks: Ranks,
) -> tuple[Engine, FinetuneObjective, LoopOptions]:
    """Puts together the arguments of `loop.train` that train a model, in place, on the mean token NLL of rows.

    Args:
        subject: the model; it is changed.
        rows: the rows it learns.
        options: settings of the training.
        engine_options: where it runs.
    """
    policy = subject.policy
    engine = build_engine(
        policy,
        engine_options,
        ranks,
        weight_decay=options.weight_decay,
        clip=options.clip,
        precision=options.precision,
        optimizer=options.optimizer,
    )
    plan = BatchPlan(options.global_batch, options.split, options.seed, subject.pad_id, ranks)
    objective = FinetuneObjective(rows, plan, policy.device)
    steps = total_steps(len(rows), options.epochs, options.global_batch, options.steps)
    return engine, objective, LoopOptions(options.lr, steps, options.warmup, options.schedule, options.global_batch)
