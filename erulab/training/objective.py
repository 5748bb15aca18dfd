"""What a training minimises: fine-tuning on rows, or unlearning. Both normalise over the global batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch

from erulab import logprobs
from erulab.data.encoding import Encoded, collate
from erulab.ranks import Ranks
from erulab.training.batches import micro_batches, stream

# The forward of an engine: (batch, reference, kl_rows) -> (token NLL, token KL or None).
Forward = Callable[..., Any]
Sums = dict[str, torch.Tensor]


class Objective(Protocol):
    """A loss over global batches, taken one micro-batch at a time."""

    def start_step(self, step: int, total: int) -> Sequence[Any]:
        """Prepares step `step` of `total` and returns this rank's micro-batches."""
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


class FinetuneObjective:
    """Mean NLL over the supervised tokens of the global batch: how target, oracle and attackers learn."""

    def __init__(
        self, rows: Sequence[Encoded], *, global_batch: int, micro_batch: int, seed: int, pad_id: int,
        ranks: Ranks, device: torch.device,
    ) -> None:  # fmt: skip
        self._rows = rows
        self._global_batch, self._micro_batch = global_batch, micro_batch
        self._seed, self._pad_id, self._ranks, self._device = seed, pad_id, ranks, device
        self._tokens = 1

    def start_step(self, step: int, total: int) -> Sequence[list[int]]:
        indices = stream(self._seed, "learn", len(self._rows), step * self._global_batch, self._global_batch)
        self._tokens = sum(self._rows[i].tokens for i in indices)
        return micro_batches(indices, self._rows, self._micro_batch, self._ranks.rank, self._ranks.world)

    @contextmanager
    def micro_step(self, forward: Forward, micro: list[int]) -> Iterator[tuple[torch.Tensor, Sums]]:
        batch = collate([self._rows[i] for i in micro], self._pad_id).to(self._device)
        nll, _ = forward(batch)
        loss = nll.sum() / self._tokens
        yield loss, {"loss": loss.detach()}

    def end_step(self, sums: dict[str, float]) -> dict[str, float]:
        return {"loss": sums["loss"]}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Row order is a function of the step: nothing to restore."""


def row_totals(nll: torch.Tensor, supervised: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows,) summed NLL and (rows,) token counts, from per-token values in row-major order."""
    return logprobs.row_sums(nll, supervised), supervised.sum(1).to(nll.dtype)
