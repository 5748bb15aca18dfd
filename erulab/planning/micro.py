"""Micro-batches of a global batch whose rows have expected lengths, cut by the rule of training/batches.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from erulab.costs.flops import TokenCounts
from erulab.options import RunConfig
from erulab.planning.rows import RowLengths
from erulab.training import batches
from erulab.training.batches import Split


@dataclass(frozen=True)
class RowGroup:
    """Kinds of rows that stay together row by row, such as answers and their paired answers."""

    kinds: tuple[RowLengths, ...]
    size: int  # rows of each kind in the global batch

    def expected_length(self, k: int) -> float:
        """Returns the expected tokens of the k-th row in order of length, of the longest kind."""
        return max(kind.lengths.at((k + 1) / (self.size + 1)) for kind in self.kinds)


@dataclass(frozen=True)
class ExpectedMicroBatch:
    """One micro-batch of a global batch."""

    groups: tuple[RowGroup, ...]
    counts: tuple[int, ...]  # rows of each group in this micro-batch
    longest: tuple[int, ...]  # rank of each group's longest row here, among its rows in order of length, from 0

    @property
    def parts(self) -> list[TokenCounts]:
        """Counts the tokens of each kind of rows, padded to the longest of all."""
        length = max(group.expected_length(k) for group, k in zip(self.groups, self.longest, strict=True))
        return [
            _padded_rows(kind, count, length)
            for group, count in zip(self.groups, self.counts, strict=True)
            for kind in group.kinds
        ]

    @property
    def rows(self) -> TokenCounts:
        """Counts the tokens of all rows, padded to the longest."""
        return reduce(add, self.parts)

    def alone(self, part: RowLengths) -> TokenCounts:
        """Counts the tokens of the first group's rows run by themselves, as an adversary runs forget rows.

        Args:
            part: their lengths, in place of the first group's: forget rows also where refusals are trained on.
        """
        group = RowGroup((part,), self.groups[0].size)
        return _padded_rows(part, self.counts[0], group.expected_length(self.longest[0]))


def expected_micro_batches(groups: Sequence[RowGroup], split: Split, world: int) -> list[list[ExpectedMicroBatch]]:
    """Cuts a global batch whose rows have the lengths that are expected of sorted draws.

    Args:
        groups: kinds of rows in one forward.
        split: how training cuts global batches.
        world: processes.
    Returns:
        For each process its micro-batches.
    """
    parts = [
        # Rounded up, but not for the rounding error of a sum.
        batches.Part(
            range(group.size),
            [math.ceil(group.expected_length(k) - 1e-9) for k in range(group.size)],
            len(group.kinds),
        )
        for group in groups
    ]
    return [
        [
            ExpectedMicroBatch(tuple(groups), tuple(map(len, micro)), tuple(map(max, micro)))
            for micro in batches.micro_batches(parts, split, rank, world)
        ]
        for rank in range(world)
    ]


def unlearning_split(config: RunConfig) -> Split:
    """Returns how unlearning cuts its global batches."""
    return Split(config.trainer.micro_batch, config.trainer.micro_tokens)


def learning_split(config: RunConfig) -> Split:
    """Returns how learning cuts its global batches: target.micro_batch wins over trainer.micro_tokens."""
    own = config.target.micro_batch
    return Split(own, config.trainer.micro_tokens if own is None else None)


def rows_in_largest_micro_batch(groups: Sequence[RowGroup], split: Split, world: int) -> tuple[int, ...]:
    """Returns the rows of each group in the micro-batch that needs most memory: the one with the longest rows.

    Args:
        groups, split, world: as for `expected_micro_batches`.
    """
    shares = [group.size // world for group in groups]
    first = split.micro_batch or shares[0]
    if split.micro_tokens is not None:
        longest = max(kind.lengths.longest for group in groups for kind in group.kinds)
        # Sequences of all groups per row of the first.
        sequences = sum(len(group.kinds) * share / shares[0] for group, share in zip(groups, shares, strict=True))
        first = min(max(int(split.micro_tokens / (sequences * longest)), 1), shares[0])
    return tuple(math.ceil(share * first / shares[0]) for share in shares)


def _padded_rows(kind: RowLengths, count: int, length: float) -> TokenCounts:
    return TokenCounts(count, count * length, count * length**2, count * kind.supervised)
