"""From text to token ids, and from encoded rows to a padded batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Token ids of one prompt and response; `ids[start:end]` is supervised, `ids[:start]` is the prompt."""

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

    @property
    def tokens(self) -> torch.Tensor:
        """(rows,) number of supervised tokens."""
        return self.supervised.sum(1)

    def select(self, rows: torch.Tensor) -> Batch:
        """The rows of a (n,) int64 index, same padding."""
        index = rows.tolist()
        return Batch(
            tuple(self.row_ids[i] for i in index),
            self.input_ids[rows],
            self.attention_mask[rows],
            self.supervised[rows],
            self.prompt_mask[rows],
        )

    def to(self, device: torch.device | str) -> Batch:
        return Batch(
            self.row_ids,
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.supervised.to(device),
            self.prompt_mask.to(device),
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
