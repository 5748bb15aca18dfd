"""Micro-batches of a global batch whose rows have expected lengths, cut by the rule of training/batches.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from erulab.costs.flops import TokenCounts
from erulab.options import RunConfig
from erulab.planning.rows import RowLengths
from erulab.training import batches
from erulab.training.batches import Split

# Kinds of rows that stay together row by row, such as answers and their paired answers.
Group = Sequence[RowLengths]


@dataclass(frozen=True)
class ExpectedMicroBatch:
    """One micro-batch of a global batch."""

    groups: tuple[Group, ...]
    counts: tuple[int, ...]  # rows of each group in this micro-batch
    longest: tuple[int, ...]  # rank of each group's longest row here, among its rows in order of length, from 0
    size: int  # rows of each group in the global batch

    @property
    def rows(self) -> TokenCounts:
        """Counts the tokens of all rows, padded to the longest."""
        total = TokenCounts()
        for i in range(len(self.groups)):
            total += self.of_group(i)
        return total

    def of_group(self, i: int) -> TokenCounts:
        """Counts the tokens of one group's rows, padded to the longest of all groups."""
        groups = zip(self.groups, self.longest, strict=True)
        return _padded_rows(
            self.groups[i], self.counts[i], max(_expected_length(group, k, self.size) for group, k in groups)
        )

    def alone(self, part: RowLengths) -> TokenCounts:
        """Counts the tokens of the first group's rows run by themselves, as an adversary runs forget rows.

        Args:
            part: their lengths, in place of the first group's: forget rows also where refusals are trained on.
        """
        return _padded_rows([part], self.counts[0], _expected_length([part], self.longest[0], self.size))


def expected_micro_batches(
    groups: Sequence[Group], size: int, split: Split, world: int
) -> list[list[ExpectedMicroBatch]]:
    """Cuts a global batch whose rows have the lengths that are expected of sorted draws.

    Args:
        groups: kinds of rows in one forward.
        size: rows of each group in the global batch.
        split: how training cuts global batches.
        world: processes.
    Returns:
        For each process its micro-batches.
    """
    parts = [
        # Rounded up, but not for the rounding error of a sum.
        batches.Part(range(size), [math.ceil(_expected_length(group, k, size) - 1e-9) for k in range(size)], len(group))
        for group in groups
    ]
    return [
        [
            ExpectedMicroBatch(tuple(groups), tuple(map(len, micro)), tuple(map(max, micro)), size)
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


def rows_in_largest_micro_batch(groups: Sequence[Group], size: int, split: Split, world: int) -> int:
    """Returns the rows of each group in the micro-batch that needs most memory: the one with the longest rows.

    Args:
        groups, size, split, world: as for `expected_micro_batches`.
    """
    share = size // world
    if split.micro_tokens is None:
        return split.micro_batch or share
    sequences = sum(len(group) for group in groups)
    longest = max(part.lengths.longest for group in groups for part in group)
    return min(max(int(split.micro_tokens / (sequences * longest)), 1), share)


def _expected_length(group: Group, k: int, size: int) -> float:
    """Returns the expected tokens of the k-th of `size` rows in order of length, of the longest kind in the group."""
    return max(part.lengths.at((k + 1) / (size + 1)) for part in group)


def _padded_rows(group: Group, count: int, length: float) -> TokenCounts:
    n = count * len(group)
    return TokenCounts(n, n * length, n * length**2, count * sum(part.supervised for part in group))
