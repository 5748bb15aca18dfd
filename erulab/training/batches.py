"""Which rows a step sees: a pure function of seed, epoch and position, the same on any number of processes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from erulab import draws
from erulab.data.encoding import Encoded


def stream(seed: int, part: str, n: int, start: int, count: int) -> list[int]:
    """Row indices at positions start .. start+count-1 of an endless stream of shuffled epochs.

    Args:
        part: names the stream ("forget", "retain"); n: rows an epoch.
    """
    rows: list[int] = []
    for epoch in range(start // n, (start + count - 1) // n + 1):
        order = draws.permutation(n, seed, "order", part, epoch)
        first, last = max(start - epoch * n, 0), min(start + count - epoch * n, n)
        rows.extend(order[first:last])
    return rows


def total_steps(rows: int, epochs: float, global_batch: int, steps: int | None = None) -> int:
    """Optimizer steps of a training; `steps` wins. The last step wraps into the next epoch to stay full."""
    return steps if steps is not None else max(1, math.ceil(rows * epochs / global_batch))


def micro_batches(
    rows: Sequence[int], encoded: Sequence[Encoded], micro_batch: int, rank: int, world: int
) -> list[list[int]]:
    """This rank's micro-batches of one global batch, rows of like length together.

    Lengths permute rows only inside the global batch, so what a step learns from never depends on them. Every rank
    gets the same number: the caller has checked global_batch = micro_batch x accumulation x processes.
    """
    by_length = sorted(rows, key=lambda i: (len(encoded[i].ids), i))
    chunks = [by_length[i : i + micro_batch] for i in range(0, len(by_length), micro_batch)]
    return chunks[rank::world]
