"""Preparing the next step's batches while the current one trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetched(make: Callable[[int], T], first: int, last: int) -> Iterator[tuple[int, T]]:
    """Yields (step, make(step)) for first <= step < last, and makes one step ahead in a thread of its own.

    Args:
        make: a pure function of the step, because it runs while the step before is still training.
    """
    if first >= last:
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        coming = pool.submit(make, first)
        for step in range(first, last):
            made = coming.result()
            if step + 1 < last:
                coming = pool.submit(make, step + 1)
            yield step, made
