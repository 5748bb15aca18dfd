"""The objective that a training minimises, and fine-tuning's; `unlearning.py` has the other one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from erulab.data.arrow_sequence import read_items
from erulab.ranks import Ranks
from erulab.tokens.batch import Batch, Encoded, collate
from erulab.training.batches import Part, Split, micro_batches, rows_of_stream
from erulab.training.engine import Engine

# The forward of an engine: (batch, request, reference view) -> what is shown of each part (models.policy.Policy).
Forward = Callable[..., Any]
Sums = dict[str, torch.Tensor]


@dataclass(frozen=True)
class BatchPlan:
    """The plan by which the global batch of each step is drawn and cut into micro-batches."""

    global_batch: int  # rows per step, over all ranks
    split: Split
    seed: int  # of the row order and of every draw
    pad_id: int
    ranks: Ranks
    retain_ratio: float = 1.0  # retain rows per forget row

    @property
    def retain_rows(self) -> int:
        """Retain rows per step, over all ranks."""
        return round(self.global_batch * self.retain_ratio)


class Objective(Protocol):
    """A loss over global batches, computed one micro-batch at a time."""

    def micro_batches(self, step: int) -> Sequence[Any]:
        """Returns this rank's micro-batches: a pure function of the step, called ahead of time in another thread."""
        ...

    def start_step(self, step: int, total: int) -> None:
        """Prepares step `step` of `total`, before its first micro-batch."""
        ...

    def accumulate(self, engine: Engine, micros: Sequence[Any]) -> Sums:
        """Gives the engine the gradient of a step; returns sums over this rank's micro-batches.

        Args:
            micros: this rank's micro-batches of the step, in order.
        """
        ...

    def micro_step(self, forward: Forward, micro: Any) -> AbstractContextManager[tuple[torch.Tensor, Sums]]:
        """Yields one micro-batch's share of the global loss, and sums to be added over micro-batches and ranks.

        The context stays open until backward has ended, because an adversary's hooks run again under checkpointing.
        """
        ...

    def end_step(self, sums: dict[str, float]) -> dict[str, float]:
        """Returns the step's metrics from sums over all micro-batches and ranks, and updates moving statistics."""
        ...

    def state_dict(self) -> dict[str, torch.Tensor]: ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None: ...


@dataclass(frozen=True)
class FinetuneBatch:
    """Rows of one micro-batch, and the supervised tokens of the whole global batch."""

    batch: Batch
    tokens: int


class FinetuneObjective:
    """Mean NLL over the supervised tokens of the global batch: how target, oracle and relearning attacks learn."""

    def __init__(self, rows: Sequence[Encoded], plan: BatchPlan, device: torch.device) -> None:
        """`device`: of the policy's weights."""
        self._rows, self._plan, self._device = rows, plan, device

    def micro_batches(self, step: int) -> Sequence[FinetuneBatch]:
        plan = self._plan
        indices = rows_of_stream(plan.seed, "learn", len(self._rows), step * plan.global_batch, plan.global_batch)
        return self.cut(indices, read_items(self._rows, indices))

    def cut(self, indices: Sequence[int], read: Sequence[Encoded]) -> list[FinetuneBatch]:
        """Cuts a global batch into this rank's micro-batches.

        Args:
            indices: of its rows.
            read: these rows.
        """
        plan, rows = self._plan, dict(zip(indices, read, strict=True))
        part = Part(indices, [len(rows[i].ids) for i in indices])
        tokens = sum(rows[i].tokens for i in indices)
        micros = micro_batches([part], plan.split, plan.ranks.rank, plan.ranks.world)
        return [
            FinetuneBatch(pinned(collate([rows[i] for i in micro], plan.pad_id), self._device), tokens)
            for (micro,) in micros
            if micro
        ]

    def start_step(self, step: int, total: int) -> None:
        """Prepares nothing."""

    def accumulate(self, engine: Engine, micros: Sequence[FinetuneBatch]) -> Sums:
        return accumulate_together(engine, micros, self.micro_step)

    @contextmanager
    def micro_step(self, forward: Forward, micro: FinetuneBatch) -> Iterator[tuple[torch.Tensor, Sums]]:
        (shown,) = forward(micro.batch.to(self._device))
        loss = shown.nll.sum() / micro.tokens
        yield loss, {"loss": loss.detach()}

    def end_step(self, sums: dict[str, float]) -> dict[str, float]:
        return {"loss": sums["loss"]}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restores nothing, because the row order is a function of the step."""


def pinned(batch: Batch, device: torch.device) -> Batch:
    """Returns the batch in pinned memory if `device` is a GPU, so that copying it there overlaps with computing."""
    return batch.pin_memory() if device.type == "cuda" else batch


# Opens one micro-batch: (forward, micro-batch) -> its share of the global loss, and sums.
MicroStep = Callable[[Forward, Any], AbstractContextManager[tuple[torch.Tensor, Sums]]]


def accumulate_together(engine: Engine, micros: Sequence[Any], micro_step: MicroStep) -> Sums:
    """Runs forward and backward of all micro-batches of a step on the engine, one after another.

    Args:
        micros: this rank's micro-batches.
        micro_step: computes the loss of one of them.
    Returns:
        The sums over the micro-batches.
    """
    sums: Sums = {}
    for number, micro in enumerate(micros):
        with engine.autocast(), micro_step(engine, micro) as (loss, micro_sums):
            engine.backward(loss, last=number == len(micros) - 1)
        add_sums(sums, micro_sums)
    return sums


def add_sums(sums: Sums, more: Sums) -> None:
    """Adds one micro-batch's sums to those of the micro-batches before it."""
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value
