"""Means over runs with 95 % intervals, and paired differences. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mean:
    """A mean of `n` values with its 95 % interval; `low` and `high` are None for a single value."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def holds_zero(self) -> bool | None:
        """Whether 0 lies within the interval; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high

    def as_share(self) -> Mean:
        """Returns the mean of a share: its interval ends at 0 and 1, because no share lies beyond."""
        if self.low is None or self.high is None:
            return self
        return Mean(self.value, max(self.low, 0.0), min(self.high, 1.0), self.n)


def mean_with_interval(values: Sequence[float]) -> Mean | None:
    """Returns the mean of independent values with Student's t-interval; None for no values.

    The interval is mean +- t(0.975, n - 1) s / sqrt(n).
    """
    n = len(values)
    if n == 0:
        return None
    middle = math.fsum(values) / n
    if n == 1:
        return Mean(middle, None, None, n)
    from scipy.special import stdtrit  # scipy takes a moment, and only comparisons of several runs need it

    spread = math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n)
    return Mean(middle, middle - half, middle + half, n)


def mean_paired_difference(one: Mapping[str, float], other: Mapping[str, float]) -> Mean | None:
    """Returns the mean of `one` minus `other` over the pairs that both have; None if they share none.

    Args:
        one, other: pair (world and seed) -> value.
    """
    return mean_with_interval([value - other[pair] for pair, value in one.items() if pair in other])
