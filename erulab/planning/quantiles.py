"""Quantiles of row lengths, and the lengths that batches of drawn rows are padded to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Quantiles:
    """A distribution as a piecewise linear quantile function: `values[i]` is the `shares[i]` quantile."""

    shares: tuple[float, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Quantiles:
        """Makes the quantiles of one or more values."""
        found = sorted(values)
        last = max(len(found) - 1, 1)
        return cls(tuple(i / last for i in range(len(found))), tuple(found))

    @classmethod
    def constant(cls, value: float) -> Quantiles:
        """Makes the quantiles of values that are all equal."""
        return cls((0.0,), (value,))

    @property
    def longest(self) -> float:
        return self.values[-1]

    def at(self, share: float) -> float:
        """Returns the value that this share of the rows does not exceed."""
        right = bisect_right(self.shares, share)
        if right == 0 or right == len(self.shares):
            return self.values[max(right - 1, 0)]
        low, high = self.shares[right - 1], self.shares[right]
        part = (share - low) / (high - low)
        return self.values[right - 1] + part * (self.values[right] - self.values[right - 1])

    def mapped(self, change: Callable[[float], float]) -> Quantiles:
        """Applies an increasing function to every value."""
        return Quantiles(self.shares, tuple(change(value) for value in self.values))

    def padded(self, batch: int, chunk: int) -> list[float]:
        """Returns the expected longest length of each chunk of a batch that is sorted by length and cut into chunks.

        The k-th of n values drawn at random is expected at about the k/(n+1) quantile.

        Args:
            batch: rows drawn at random.
            chunk: rows per chunk.
        """
        return [self.at(last / (batch + 1)) for last in range(chunk, batch + 1, chunk)]
