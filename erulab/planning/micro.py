"""The micro-batches that a global batch of expected lengths is cut into, by the rule that training cuts by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from erulab.costs.flops import Rows
from erulab.options import RunConfig
from erulab.planning.rows import Part
from erulab.training import batches
from erulab.training.batches import Split

# Kinds of rows that go together row by row, such as answers and their paired answers.
Group = Sequence[Part]


@dataclass(frozen=True)
class Expected:
    """One micro-batch of a global batch of `size` rows a group: rows of each group, and the place of its longest."""

    groups: tuple[Group, ...]
    counts: tuple[int, ...]
    longest: tuple[int, ...]  # among the group's rows in order of length, from 0
    size: int

    @property
    def rows(self) -> Rows:
        """All rows, padded to the longest."""
        total = Rows()
        for i in range(len(self.groups)):
            total += self.of(i)
        return total

    def of(self, i: int) -> Rows:
        """The rows of one group, padded to the longest of all."""
        groups = zip(self.groups, self.longest, strict=True)
        return _rows(self.groups[i], self.counts[i], max(_length(group, k, self.size) for group, k in groups))

    def alone(self, part: Part) -> Rows:
        """Rows of one kind in the first group's places, padded among themselves: as an adversary sees forget rows."""
        return _rows([part], self.counts[0], _length([part], self.longest[0], self.size))


def expected(groups: Sequence[Group], size: int, split: Split, world: int) -> list[list[Expected]]:
    """Each process's micro-batches of `size` rows of each group, whose lengths are those expected of sorted draws."""
    parts = [
        # Not a token more for a sum's rounding.
        batches.Part(range(size), [math.ceil(_length(group, k, size) - 1e-9) for k in range(size)], len(group))
        for group in groups
    ]
    return [
        [
            Expected(tuple(groups), tuple(map(len, micro)), tuple(map(max, micro)), size)
            for micro in batches.micro_batches(parts, split, rank, world)
        ]
        for rank in range(world)
    ]


def unlearning_split(config: RunConfig) -> Split:
    """How unlearning cuts its global batches."""
    return Split(config.trainer.micro_batch, config.trainer.micro_tokens)


def learning_split(config: RunConfig) -> Split:
    """How learning does: its own micro batch wins over the trainer's budget."""
    own = config.target.micro_batch
    return Split(own, config.trainer.micro_tokens if own is None else None)


def largest(groups: Sequence[Group], size: int, split: Split, world: int) -> int:
    """Rows of each group in the largest micro-batch, that of the longest rows there are."""
    share = size // world
    if split.micro_tokens is None:
        return split.micro_batch or share
    sequences = sum(len(group) for group in groups)
    longest = max(part.lengths.longest for group in groups for part in group)
    return min(max(int(split.micro_tokens / (sequences * longest)), 1), share)


def _length(group: Group, k: int, size: int) -> float:
    """Tokens expected of the k-th of `size` rows in order of length; of the longer one where several go together."""
    return max(part.lengths.at((k + 1) / (size + 1)) for part in group)


def _rows(group: Group, count: int, length: float) -> Rows:
    n = count * len(group)
    return Rows(n, n * length, n * length**2, count * sum(part.supervised for part in group))
