"""The training loop of learning, unlearning and attacks, on every engine."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from erulab.costs.ledger import Ledger
from erulab.errors import NumericFault
from erulab.options import Schedule
from erulab.ranks import Ranks
from erulab.training.checkpoints import Checkpoints
from erulab.training.engine import Engine
from erulab.training.objective import Objective
from erulab.training.prefetch import prefetched
from erulab.training.schedule import learning_rate
from erulab.training.stopping import StopRequest

SHOWN_ROWS = 3  # in the message of a loss that is not finite
COSTS = ("cost/tokens", "cost/flops", "cost/flops_adversary")


@dataclass(frozen=True)
class LoopOptions:
    """Settings of the loop that no objective or engine needs to know."""

    lr: float
    steps: int
    warmup: float  # share of the steps
    schedule: Schedule
    global_batch: int  # rows per step, for the rate that is logged
    save_every: int | None = None  # steps between checkpoints


def train(
    engine: Engine,
    objective: Objective,
    options: LoopOptions,
    ranks: Ranks,
    checkpoints: Checkpoints | None = None,
    stop: StopRequest | None = None,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Runs all steps and yields (step, metrics) after each; continues from the newest checkpoint if there is one.

    The metrics in COSTS are running totals of the policy's ledger over all processes.

    Args:
        checkpoints: saved every `save_every` steps and when stopped; None for trainings too short to resume.
        stop: set by a signal; the loop then saves and raises.
    Raises:
        NumericFault: a loss or gradient norm is not finite, on any rank. No update is taken. Exception: DeepSpeed
            reports the norm after its update; the weights in memory are then useless, the last checkpoint is intact.
        Interrupted: stopped by a signal, after a checkpoint.
    """
    first = checkpoints.restore(engine, objective) if checkpoints else 0
    started = time.perf_counter()
    for step, micros in prefetched(objective.micro_batches, first, options.steps):
        with engine.autocast():
            objective.start_step(step, options.steps)
        sums = objective.accumulate(engine, micros)
        totals = _sum_over_ranks(sums | _cost_sums(engine.policy.ledger), ranks)
        costs = {name: totals.pop(name) for name in COSTS}
        metrics = objective.end_step(totals)
        if not math.isfinite(metrics["loss"]):
            faulty = _rows_with_faulty_loss(engine, objective, micros)
            raise _numeric_fault(f"loss is {metrics['loss']} at step {step}", faulty, ranks, checkpoints)
        lr = learning_rate(options.lr, step, options.steps, options.warmup, options.schedule)
        norm = engine.step(lr)
        if not math.isfinite(norm):
            # The losses are finite, so that any of this step's rows may be the cause.
            rows = [row for micro in micros for row in micro.batch.row_ids]
            raise _numeric_fault(f"gradient norm is {norm} at step {step}", rows, ranks, checkpoints)
        seconds = time.perf_counter() - started
        figures = {"lr": lr, "grad_norm": norm, "rows_per_second": options.global_batch / seconds}
        yield step, {**metrics, **figures, **costs}
        if checkpoints:
            done = step + 1
            # A signal to one rank stops all ranks: a rank alone in a collective would hang there.
            stopping = stop is not None and any(ranks.gather_objects(stop.requested))
            if stopping or (options.save_every and done % options.save_every == 0 and done < options.steps):
                checkpoints.save(done, engine, objective)
            if stopping and stop is not None:
                stop.interrupt(f"stopped after step {done} of {options.steps}")
        started = time.perf_counter()


def _rows_with_faulty_loss(engine: Engine, objective: Objective, micros: Sequence[Any]) -> list[str]:
    """Returns the row ids of this rank's first micro-batch whose loss is not finite; computes the losses again."""
    found: list[str] = []
    for micro in micros:  # to the end, because the ranks may meet in a forward
        with engine.autocast(), objective.micro_step(engine, micro) as (loss, sums):
            finite = math.isfinite(loss.item())
            del loss, sums  # with their graph, before the next forward
        if not found and not finite:
            found = list(micro.batch.row_ids)
    return found


def _numeric_fault(what: str, mine: list[str], ranks: Ranks, checkpoints: Checkpoints | None) -> NumericFault:
    """Makes the error of all ranks: what is not finite, in which rows, and what is left to continue from.

    Args:
        mine: ids of the rows of this rank that may be the cause.
    """
    rows = list(dict.fromkeys(row for of_rank in ranks.gather_objects(mine) for row in of_rank))
    more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    where = f" in rows {', '.join(rows[:SHOWN_ROWS])}{more}" if rows else ""
    newest = checkpoints.newest() if checkpoints else None
    left = f"the last good checkpoint is {newest}" if newest else "no checkpoint was written (trainer.save_every)"
    return NumericFault(f"{what}{where}; {left}; try a smaller trainer.lr or target.lr")


def _cost_sums(ledger: Ledger) -> dict[str, torch.Tensor]:
    """Returns this rank's share of the metrics in COSTS."""
    spent = ledger.spent
    values = (spent.tokens, spent.flops, spent.flops_adversary)
    return dict(zip(COSTS, torch.tensor(values, dtype=torch.float64), strict=True))


def _sum_over_ranks(sums: dict[str, torch.Tensor], ranks: Ranks) -> dict[str, float]:
    names = sorted(sums)
    values = torch.stack([sums[name].detach().double().cpu() for name in names])
    return dict(zip(names, ranks.all_reduce_sum(values).tolist(), strict=True))
