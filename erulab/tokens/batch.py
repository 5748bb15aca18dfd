"""From text to token ids, and from encoded rows to a padded batch."""

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

    A text without a prompt starts at 0. Its first id, which nothing predicts, is not supervised all the same.
    """

    row_id: str
    ids: tuple[int, ...]
    start: int
    end: int

    @property
    def tokens(self) -> int:
        """Supervised tokens: each is predicted from the token before it, so the first id never counts."""
        return self.end - max(self.start, 1)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Encoded rows, padded on the right. Masks come from lengths, never from ids: pad may equal end-of-turn."""

    row_ids: tuple[str, ...]
    input_ids: torch.Tensor  # (rows, length) int64
    attention_mask: torch.Tensor  # (rows, length) int64, 1 on real tokens
    supervised: torch.Tensor  # (rows, length) bool, tokens whose NLL counts
    prompt_mask: torch.Tensor  # (rows, length) bool, tokens before the response
    # (rows,) group of each row: rows of one group that begin alike may be computed together up to where they differ.
    # Empty: all rows are one group. Whoever edits the states of some rows only puts them into groups of their own.
    share: tuple[int, ...] = ()

    @property
    def tokens(self) -> torch.Tensor:
        """(rows,) number of supervised tokens."""
        return self.supervised.sum(1)

    @property
    def without_prompt(self) -> torch.Tensor:
        """(rows, 1) bool, rows of running text that is learned as it is."""
        return ~self.prompt_mask.any(1, keepdim=True)

    def select(self, rows: torch.Tensor) -> Batch:
        """The rows of a (n,) int64 index, same padding."""
        index = rows.tolist()
        picked = self._each(lambda tensor: tensor[rows])
        share = tuple(self.share[i] for i in index) if self.share else ()
        return dataclasses.replace(picked, row_ids=tuple(self.row_ids[i] for i in index), share=share)

    def to(self, device: torch.device | str) -> Batch:
        # Without waiting: from pinned memory the copy goes on while the CPU queues the forward.
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        return dataclasses.replace(
            self,
            input_ids=change(self.input_ids),
            attention_mask=change(self.attention_mask),
            supervised=change(self.supervised),
            prompt_mask=change(self.prompt_mask),
        )


def collate(rows: Sequence[Encoded], pad_id: int) -> Batch:
    """Pads to the longest row, on the right."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    real = torch.zeros((len(rows), length), dtype=torch.int64)
    supervised = torch.zeros((len(rows), length), dtype=torch.bool)
    prompt = torch.zeros((len(rows), length), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        real[i, : len(row.ids)] = 1
        supervised[i, max(row.start, 1) : row.end] = True
        prompt[i, : row.start] = True
    return Batch(tuple(row.row_id for row in rows), ids, real, supervised, prompt)
