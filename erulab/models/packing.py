"""Packs the rows of a batch without padding, and computes common openings once.

A causal model computes the same states for the same opening, whatever follows. Rows with a common opening (a system
prompt, one question with several answers) are therefore laid out as a tree: each piece of text once, each row a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from erulab.tokens.batch import Batch

# A common opening with fewer tokens is computed once per row: one more attention call would cost more than it saves.
SHORTEST_SHARED = 8
# The cost of one more attention call in tokens times width^2, measured with SmolLM2-135M and the embedded model on two
# cores: a call costs about as much as one token of width 576 does in a block.
CALL = 576**2


@dataclass(frozen=True)
class Piece:
    """A run of tokens in the packed sequence, and the earlier pieces that it continues."""

    start: int
    length: int
    before: tuple[int, ...]  # indices of the pieces before it in its rows, from the first on


@dataclass
class Packing:
    """The packed sequence of a batch, and the place of its tokens in the batch's rows."""

    pieces: list[Piece] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)  # of each token in its rows
    owners: list[int] = field(default_factory=list)  # of each token: row * length + position in one of its rows
    index: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # (rows, length) place in the packed sequence

    def unpack(self, states: torch.Tensor) -> torch.Tensor:
        """Turns (1, packed, width) into (rows, length, width); padding gets the state of some other token."""
        return states[0][self.index]

    def pack(self, states: torch.Tensor) -> torch.Tensor:
        """Turns (rows, length, width) into (1, packed, width); rows that share a token must have equal states there."""
        owners = torch.tensor(self.owners, device=states.device)
        return states.flatten(0, 1)[owners].unsqueeze(0)

    def mask(self) -> torch.Tensor:
        """Returns the (1, 1, packed, packed) bool attention mask.

        A token sees the tokens of its own piece up to itself, and all tokens of the pieces before it.
        """
        owner = torch.empty(len(self.ids), dtype=torch.int64)
        seen = torch.zeros(len(self.pieces), len(self.pieces), dtype=torch.bool)
        for i, piece in enumerate(self.pieces):
            owner[piece.start : piece.start + piece.length] = i
            seen[i, [*piece.before, i]] = True
        # A piece comes after the pieces that it continues, so no token sees a later one.
        return (seen[owner][:, owner].tril())[None, None]

    def worth(self, width: int) -> bool:
        """Tells whether the saved tokens are worth more than the additional attention calls, for a model's width."""
        saved = self.index.numel() - len(self.ids)
        return saved * width**2 > len(self.pieces) * CALL

    def worth_in_one_call(self, width: int) -> bool:
        """Tells whether packing saves operations if one masked call computes attention between all packed tokens.

        A token takes about 24 width^2 operations in the matrices of a block, and 4 width per token that attention
        compares it with.
        """
        packed, (rows, length) = len(self.ids), self.index.shape
        return packed * (6 * width + packed) < rows * length * (6 * width + length)


def pack(batch: Batch) -> Packing:
    """Packs a batch; rows of one `batch.prefix_group` group share their common openings."""
    rows, length = batch.input_ids.shape
    lengths = batch.attention_mask.sum(1).tolist()
    ids = [row[:n] for row, n in zip(batch.input_ids.tolist(), lengths, strict=True)]
    packing = Packing(index=torch.zeros(rows, length, dtype=torch.int64))
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(batch.prefix_group or [0] * rows):
        groups.setdefault(group, []).append(row)
    for members in groups.values():
        members.sort(key=lambda row: ids[row])
        common = [common_length(ids[a], ids[b]) for a, b in zip(members, members[1:], strict=False)]
        _add_subtree(packing, ids, members, common, 0, ())
    return packing


def _add_subtree(
    packing: Packing, ids: list[list[int]], rows: list[int], common: Sequence[int], start: int, before: tuple[int, ...]
) -> None:
    """Adds the pieces of some rows to the packing, from one position on.

    Args:
        ids: of each row of the batch.
        rows: indices of rows that are equal up to `start`, sorted by their ids.
        common: length of the common opening of each row and the next.
        before: indices of the pieces that hold these rows up to `start`.
    """
    end = min(common, default=len(ids[rows[0]]))
    if end - start >= SHORTEST_SHARED or len(rows) == 1:
        if end > start:
            before = (*before, _add_piece(packing, ids, rows, start, end, before))
        start = end
    if len(rows) == 1:
        return
    first = 0
    for last in [i for i, n in enumerate(common) if n == end] + [len(common)]:
        _add_subtree(packing, ids, rows[first : last + 1], common[first:last], start, before)
        first = last + 1


def _add_piece(
    packing: Packing, ids: list[list[int]], rows: list[int], start: int, end: int, before: tuple[int, ...]
) -> int:
    """Adds positions start .. end-1, which the rows have in common, as one piece; returns its index."""
    place = len(packing.ids)
    packing.pieces.append(Piece(place, end - start, before))
    packing.ids.extend(ids[rows[0]][start:end])
    packing.positions.extend(range(start, end))
    length = packing.index.shape[1]
    packing.owners.extend(range(rows[0] * length + start, rows[0] * length + end))
    packing.index[rows, start:end] = torch.arange(place, place + end - start)
    return len(packing.pieces) - 1


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Counts the ids that two rows begin with in common."""
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)
