"""Rows side by side without padding, their common openings once: which tokens a forward really has to compute.

A causal model computes the same states for the same opening, whatever follows. Rows that begin alike (a system prompt,
one question with several answers) are therefore laid out as a tree: each piece of text once, every row a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from erulab.tokens.batch import Batch

# An opening shorter than this is computed again: a piece of its own costs more in attention calls than it saves.
SHORTEST_SHARED = 8
# Tokens times width^2 that are worth one attention call more, measured with SmolLM2-135M and the embedded model on
# two cores: there a call costs about what one token of width 576 costs in a block.
CALL = 576**2


@dataclass(frozen=True)
class Piece:
    """A run of tokens in the packed sequence, behind the pieces that it continues."""

    start: int
    length: int
    before: tuple[int, ...]  # indices of the pieces in front of it, from the row's beginning


@dataclass
class Packing:
    """The packed sequence of a batch, and how its tokens stand in the batch's rows."""

    pieces: list[Piece] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)  # of each token in its rows
    owners: list[int] = field(default_factory=list)  # of each token: row * length + position in one of its rows
    index: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # (rows, length) place in the packed sequence

    def rows(self, states: torch.Tensor) -> torch.Tensor:
        """(1, packed, width) as (rows, length, width). Where a row is padded, some token of another row stands."""
        return states[0][self.index]

    def packed(self, states: torch.Tensor) -> torch.Tensor:
        """(rows, length, width) as (1, packed, width). Rows that share a token must agree on it."""
        owners = torch.tensor(self.owners, device=states.device)
        return states.flatten(0, 1)[owners].unsqueeze(0)

    def mask(self) -> torch.Tensor:
        """(1, 1, packed, packed) bool: a token sees the tokens of its piece up to itself, and the pieces before it."""
        owner = torch.empty(len(self.ids), dtype=torch.int64)
        seen = torch.zeros(len(self.pieces), len(self.pieces), dtype=torch.bool)
        for i, piece in enumerate(self.pieces):
            owner[piece.start : piece.start + piece.length] = i
            seen[i, [*piece.before, i]] = True
        # A piece stands behind the pieces it continues, so what is seen never comes later.
        return (seen[owner][:, owner].tril())[None, None]

    def worth(self, width: int) -> bool:
        """Whether the saved tokens are worth the additional attention calls, for a model of this width."""
        saved = self.index.numel() - len(self.ids)
        return saved * width**2 > len(self.pieces) * CALL

    def worth_in_one_call(self, width: int) -> bool:
        """Whether one masked call is worth it, which computes attention between all packed tokens.

        By operations: a token takes about 24 width^2 in a block's matrices, and 4 width for each token it is held
        against.
        """
        packed, (rows, length) = len(self.ids), self.index.shape
        return packed * (6 * width + packed) < rows * length * (6 * width + length)


def pack(batch: Batch) -> Packing:
    """The packing of a batch; rows of one `batch.prefix_group` group share their common openings."""
    rows, length = batch.input_ids.shape
    lengths = batch.attention_mask.sum(1).tolist()
    ids = [row[:n] for row, n in zip(batch.input_ids.tolist(), lengths, strict=True)]
    packing = Packing(index=torch.zeros(rows, length, dtype=torch.int64))
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(batch.prefix_group or [0] * rows):
        groups.setdefault(group, []).append(row)
    for members in groups.values():
        members.sort(key=lambda row: ids[row])
        common = [_common(ids[a], ids[b]) for a, b in zip(members, members[1:], strict=False)]
        _grow(packing, ids, members, common, 0, ())
    return packing


def _grow(
    packing: Packing, ids: list[list[int]], rows: list[int], common: Sequence[int], start: int, before: tuple[int, ...]
) -> None:
    """Lays out what `rows` (in alphabetical order, equal up to `start`) hold from `start` on.

    Args:
        common: length of the common opening of each row and the next.
    """
    end = min(common, default=len(ids[rows[0]]))
    if end - start >= SHORTEST_SHARED or len(rows) == 1:
        if end > start:
            before = (*before, _add(packing, ids, rows, start, end, before))
        start = end
    if len(rows) == 1:
        return
    first = 0
    for last in [i for i, n in enumerate(common) if n == end] + [len(common)]:
        _grow(packing, ids, rows[first : last + 1], common[first:last], start, before)
        first = last + 1


def _add(packing: Packing, ids: list[list[int]], rows: list[int], start: int, end: int, before: tuple[int, ...]) -> int:
    place = len(packing.ids)
    packing.pieces.append(Piece(place, end - start, before))
    packing.ids.extend(ids[rows[0]][start:end])
    packing.positions.extend(range(start, end))
    length = packing.index.shape[1]
    packing.owners.extend(range(rows[0] * length + start, rows[0] * length + end))
    packing.index[rows, start:end] = torch.arange(place, place + end - start)
    return len(packing.pieces) - 1


def _common(a: list[int], b: list[int]) -> int:
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)
