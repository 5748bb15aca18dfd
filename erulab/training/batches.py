"""The rows of each step: a pure function of seed, epoch and position, the same on any number of processes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from erulab import draws

if TYPE_CHECKING:
    import torch  # for annotations only: `erulab.plan` counts steps without torch


def rows_of_stream(seed: int, part: str, n: int, start: int, count: int) -> list[int]:
    """Returns the row indices at positions start .. start+count-1 of an endless stream of shuffled epochs.

    Args:
        seed: draws the order of every epoch.
        part: names the stream ("forget", "retain", "learn").
        n: rows per epoch.
        start: position of the first row.
        count: number of rows.
    """
    rows: list[int] = []
    for epoch in range(start // n, (start + count - 1) // n + 1):
        first, last = max(start - epoch * n, 0), min(start + count - epoch * n, n)
        rows.extend(_shuffled_epoch(n, seed, part, epoch)[first:last].tolist())
    return rows


@functools.lru_cache(maxsize=4)  # forget and retain rows, each at the border of two epochs
def _shuffled_epoch(n: int, seed: int, part: str, epoch: int) -> torch.Tensor:
    return draws.order(n, seed, "order", part, epoch)


def total_steps(rows: int, epochs: float, global_batch: int, steps: int | None = None) -> int:
    """Returns the number of optimizer steps of a training: `steps` if given, otherwise enough for all epochs.

    The last step wraps into the next epoch, so that its batch is full.

    Args:
        rows: rows per epoch.
        epochs: passes over the rows.
        global_batch: rows per step, over all processes.
        steps: wins over `epochs`.
    """
    return steps if steps is not None else max(1, math.ceil(rows * epochs / global_batch))


@dataclass(frozen=True)
class Split:
    """The size of micro-batches: a number of rows, a budget of tokens, or (neither) the whole global batch."""

    micro_batch: int | None = None  # forget rows per forward
    micro_tokens: int | None = None  # at most so many padded tokens per forward, but at least one row of each part


@dataclass(frozen=True)
class Part:
    """The rows of one kind in a global batch: their indices, and the number of tokens of each."""

    rows: Sequence[int]
    lengths: Sequence[int] = field(repr=False)  # tokens of each row (of its longest answer)
    answers: int = 1  # sequences per row: two where it has a paired answer


def micro_batches(parts: Sequence[Part], split: Split, rank: int, world: int) -> list[tuple[list[int], ...]]:
    """Cuts one global batch into micro-batches.

    Rows of similar length go together. Lengths permute rows inside the global batch only, so the rows that a step
    learns from never depend on them. Every rank gets the same number of micro-batches, and each micro-batch has rows
    of every part that has any: under ZeRO each forward is a collective.

    Args:
        parts: the rows of each kind in the global batch, such as forget and retain rows.
        split: how to cut them.
        rank: index of this process.
        world: number of processes.
    Returns:
        This rank's micro-batches, each a tuple with the rows of every part.
    """
    sorted_parts = [_by_length(part) for part in parts if part.rows]
    most = min(len(part.rows) for part in sorted_parts) // world  # micro-batches per rank
    if split.micro_tokens is not None:
        count = _fewest_micro_batches(sorted_parts, split.micro_tokens, most, world)
    elif split.micro_batch is not None:
        count = math.ceil(len(sorted_parts[0].rows) / (split.micro_batch * world))
    else:
        count = 1
    by_tokens = split.micro_tokens is not None
    cut = iter([_cut(part, count * world, by_tokens) for part in sorted_parts])
    chunks: list[list[list[int]]] = [next(cut) if part.rows else [[]] * (count * world) for part in parts]
    return list(zip(*chunks, strict=True))[rank::world]


def _by_length(part: Part) -> Part:
    order = sorted(range(len(part.rows)), key=lambda i: (part.lengths[i], part.rows[i]))
    return Part([part.rows[i] for i in order], [part.lengths[i] for i in order], part.answers)


def _fewest_micro_batches(parts: Sequence[Part], budget: int, most: int, world: int) -> int:
    """Returns the fewest micro-batches per rank that all stay within the token budget, or `most` if none do."""
    total = sum(sum(part.lengths) * part.answers for part in parts)
    for count in range(min(max(1, total // (budget * world)), most), most):
        bounds = [_bounds(part, count * world, by_tokens=True) for part in parts]
        if max(_padded_tokens(parts, [b[i : i + 2] for b in bounds]) for i in range(count * world)) <= budget:
            return count
    return most


def _padded_tokens(parts: Sequence[Part], ranges: Sequence[Sequence[int]]) -> int:
    """Returns the padded tokens of a micro-batch that holds rows first .. last-1 of each sorted part."""
    sequences = sum((last - first) * part.answers for part, (first, last) in zip(parts, ranges, strict=True))
    return sequences * max(part.lengths[last - 1] for part, (_, last) in zip(parts, ranges, strict=True))


def _cut(part: Part, count: int, by_tokens: bool) -> list[list[int]]:
    bounds = _bounds(part, count, by_tokens)
    return [list(part.rows[first:last]) for first, last in zip(bounds, bounds[1:], strict=False)]


def _bounds(part: Part, count: int, by_tokens: bool) -> list[int]:
    """Returns the bounds of `count` runs of sorted rows with similar numbers of rows or of tokens; none is empty."""
    n = len(part.rows)
    if not by_tokens:
        return [n * i // count for i in range(count + 1)]
    total, bounds, passed = sum(part.lengths), [0], 0
    for i, length in enumerate(part.lengths):
        # A row belongs to the run that its middle token falls into, as long as each later run still gets a row.
        while len(bounds) < count and (
            n - i == count - len(bounds) or (i > bounds[-1] and (passed + length / 2) * count >= total * len(bounds))
        ):
            bounds.append(i)
        passed += length
    return [*bounds, n]
