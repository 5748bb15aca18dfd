"""Encoded rows, and how they are padded to a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Token ids of one prompt and response; `ids[start:end]` is supervised, `ids[:start]` is the prompt.

    A text without a prompt starts at 0. Its first id, which nothing predicts, is still not supervised.
    """

    row_id: str
    ids: tuple[int, ...]
    start: int
    end: int
    supervised: tuple[int, ...] | None = None  # indices of the only ids of the response that count; None: all of them

    @property
    def positions(self) -> Sequence[int]:
        """Indices of the supervised ids: each is predicted from the id before it, so the first id never counts."""
        return range(max(self.start, 1), self.end) if self.supervised is None else self.supervised

    @property
    def tokens(self) -> int:
        """Number of supervised tokens."""
        return len(self.positions)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Encoded rows, padded on the right. Masks come from lengths, never from ids: pad may equal end-of-turn."""

    row_ids: tuple[str, ...]
    input_ids: torch.Tensor  # (rows, length) int64
    attention_mask: torch.Tensor  # (rows, length) int64, 1 on real tokens
    supervised: torch.Tensor  # (rows, length) bool, tokens whose NLL counts
    prompt_mask: torch.Tensor  # (rows, length) bool, tokens before the response
    # (rows,) group of each row: rows of one group compute the ids they begin with in common once. Empty: all rows are
    # one group. A caller that edits the states of only some rows puts those into groups of their own.
    prefix_group: tuple[int, ...] = ()

    @property
    def tokens(self) -> torch.Tensor:
        """(rows,) number of supervised tokens."""
        return self.supervised.sum(1)

    @property
    def without_prompt(self) -> torch.Tensor:
        """(rows, 1) bool, rows of running text that is learned as it is."""
        return ~self.prompt_mask.any(1, keepdim=True)

    def select(self, rows: torch.Tensor) -> Batch:
        """Returns the rows at these positions with the same padding.

        Args:
            rows: (n,) int64 positions.
        """
        index = rows.tolist()
        selected = self._with_tensors(lambda tensor: tensor[rows])
        group = tuple(self.prefix_group[i] for i in index) if self.prefix_group else ()
        return dataclasses.replace(selected, row_ids=tuple(self.row_ids[i] for i in index), prefix_group=group)

    def to(self, device: torch.device | str) -> Batch:
        # Without waiting: from pinned memory the copy goes on while the CPU queues the forward.
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        return self._with_tensors(lambda tensor: tensor.pin_memory())

    def _with_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        return dataclasses.replace(
            self,
            input_ids=change(self.input_ids),
            attention_mask=change(self.attention_mask),
            supervised=change(self.supervised),
            prompt_mask=change(self.prompt_mask),
        )


def collate(rows: Sequence[Encoded], pad_id: int) -> Batch:
    """Pads rows on the right to the length of the longest."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    real = torch.zeros((len(rows), length), dtype=torch.int64)
    supervised = torch.zeros((len(rows), length), dtype=torch.bool)
    prompt = torch.zeros((len(rows), length), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        real[i, : len(row.ids)] = 1
        supervised[i, list(row.positions)] = True
        prompt[i, : row.start] = True
    return Batch(tuple(row.row_id for row in rows), ids, real, supervised, prompt)
