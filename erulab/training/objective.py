"""What a training minimises: fine-tuning on rows, or unlearning. Both normalise over the global batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from erulab import logprobs
from erulab.data.arrow_sequence import read_items
from erulab.ranks import Ranks
from erulab.tokens.batch import Batch, Encoded, collate
from erulab.training.batches import Part, Split, micro_batches, stream

# The forward of an engine: (batch, reference states) -> (token NLL, token KL or None).
Forward = Callable[..., Any]
Sums = dict[str, torch.Tensor]


class Objective(Protocol):
    """A loss over global batches, taken one micro-batch at a time."""

    def micro_batches(self, step: int) -> Sequence[Any]:
        """This rank's micro-batches of a step: a pure function of the step, called ahead of time in a thread."""
        ...

    def start_step(self, step: int, total: int) -> None:
        """Before the first micro-batch of step `step` of `total`."""
        ...

    def micro_step(self, forward: Forward, micro: Any) -> AbstractContextManager[tuple[torch.Tensor, Sums]]:
        """One micro-batch's share of the global loss, and sums to be added over micro-batches and ranks.

        The context stays open until backward has ended: an adversary's hooks run again under checkpointing.
        """
        ...

    def end_step(self, sums: dict[str, float]) -> dict[str, float]:
        """Metrics of the step from sums over all micro-batches and ranks; updates moving statistics."""
        ...

    def state_dict(self) -> dict[str, torch.Tensor]: ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None: ...


@dataclass(frozen=True)
class FinetuneBatch:
    """Rows of one micro-batch, and the supervised tokens of the whole global batch."""

    batch: Batch
    tokens: int


class FinetuneObjective:
    """Mean NLL over the supervised tokens of the global batch: how target, oracle and attackers learn."""

    def __init__(
        self,
        rows: Sequence[Encoded],
        *,
        global_batch: int,
        split: Split,
        seed: int,
        pad_id: int,
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        self._rows = rows
        self._global_batch, self._split = global_batch, split
        self._seed, self._pad_id, self._ranks, self._device = seed, pad_id, ranks, device

    def micro_batches(self, step: int) -> Sequence[FinetuneBatch]:
        indices = stream(self._seed, "learn", len(self._rows), step * self._global_batch, self._global_batch)
        rows = dict(zip(indices, read_items(self._rows, indices), strict=True))
        part = Part(indices, [len(rows[i].ids) for i in indices])
        tokens = sum(rows[i].tokens for i in indices)
        micros = micro_batches([part], self._split, self._ranks.rank, self._ranks.world)
        return [
            FinetuneBatch(ready(collate([rows[i] for i in micro], self._pad_id), self._device), tokens)
            for (micro,) in micros
        ]

    def start_step(self, step: int, total: int) -> None:
        """Nothing to prepare."""

    @contextmanager
    def micro_step(self, forward: Forward, micro: FinetuneBatch) -> Iterator[tuple[torch.Tensor, Sums]]:
        nll, _ = forward(micro.batch.to(self._device))
        loss = nll.sum() / micro.tokens
        yield loss, {"loss": loss.detach()}

    def end_step(self, sums: dict[str, float]) -> dict[str, float]:
        return {"loss": sums["loss"]}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Row order is a function of the step: nothing to restore."""


def ready(batch: Batch, device: torch.device) -> Batch:
    """The batch where a copy to the device need not wait for it."""
    return batch.pin_memory() if device.type == "cuda" else batch


def row_totals(nll: torch.Tensor, supervised: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows,) summed NLL and (rows,) token counts, from per-token values in row-major order."""
    return logprobs.row_sums(nll, supervised), supervised.sum(1).to(nll.dtype)
