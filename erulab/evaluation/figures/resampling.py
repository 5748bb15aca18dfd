"""Bootstrap over facts: resamples of the facts of a suite, means over them, and the intervals they give."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from erulab import draws

RESAMPLES = 1000
BLOCK = 100  # resamples that are drawn at once, which bounds the memory of the draws
LEVELS = {"95": (0.025, 0.975, 1.959964), "90": (0.05, 0.95, 1.644854)}  # quantiles, and that of a normal variable
MOST_UNDEFINED = 0.05  # a figure that is undefined in a larger share of the resamples has no interval

Values = NDArray[np.float64]


class FactResamples:
    """Resamples of the facts that some rows phrase: how often each fact is drawn.

    The draws depend on the facts alone. So all models share them, and so do suites that phrase the same facts: all rows
    of a fact are drawn together.
    """

    def __init__(self, facts: Sequence[str]) -> None:
        """`facts`: (rows,) the fact of each row."""
        self.facts = sorted(set(facts))
        place = {fact: i for i, fact in enumerate(self.facts)}
        self._place = np.array([place[fact] for fact in facts], dtype=np.int64)
        rng = np.random.default_rng(draws.seed_of("facts", *self.facts))
        self._drawn = np.concatenate([self._draw_block(rng) for _ in range(RESAMPLES // BLOCK)])

    def _draw_block(self, rng: np.random.Generator) -> Values:
        n = len(self.facts)
        drawn = rng.integers(n, size=(BLOCK, n)) + n * np.arange(BLOCK)[:, None]
        return np.bincount(drawn.ravel(), minlength=BLOCK * n).reshape(BLOCK, n).astype(np.float64)

    def resampled_sums(self, values: Values) -> tuple[Values, Values]:
        """Returns the sum of each figure over the drawn rows, and how many of them have it: each (resamples, figures).

        Args:
            values: (rows, figures); NaN where a row lacks the figure.
        """
        known = ~np.isnan(values)
        columns = np.concatenate([np.where(known, values, 0.0), known], axis=1)
        with np.errstate(invalid="ignore"):  # an infinite NLL; its figure gets no interval
            sums, counts = np.split(self._drawn @ self._summed_by_fact(columns), 2, axis=1)
        return sums, counts

    def resampled_pair_mean(self, values: Values, other: FactResamples) -> Values:
        """Returns the mean over all pairs of a drawn row and a row that another suite drew, (resamples,).

        Args:
            values: (rows, rows of the other suite).
        """
        by_fact = other._summed_by_fact(self._summed_by_fact(values).T).T
        rows, others = (one._drawn @ np.bincount(one._place, minlength=len(one.facts)) for one in (self, other))
        return np.einsum("ri,ri->r", self._drawn @ by_fact, other._drawn) / (rows * others)

    def _summed_by_fact(self, columns: Values) -> Values:
        if len(self.facts) == len(self._place):  # one row each, as in most suites
            return columns[np.argsort(self._place)]
        result = np.zeros((len(self.facts), columns.shape[1]))
        np.add.at(result, self._place, columns)
        return result


@dataclass(frozen=True)
class Samples:
    """A figure in each resample.

    values: (resamples,) NaN where it is undefined.
    facts: number of facts it is of; for a figure over several suites that of the smallest.
    end: 0.0 or 1.0 if the figure is a share on which all rows agree.
    """

    values: Values
    facts: int
    end: float | None = None

    def interval(self, estimate: float, level: str = "95") -> tuple[float, float] | None:
        """Returns (low, high): the percentiles of the resamples, widened to contain the estimate; Wilson's interval at
        an end of the range.

        None if there are fewer than two facts, if the figure is undefined in too many resamples, or if it is the same
        in all of them: rows that do not differ say nothing about how others would.

        Args:
            level: "95" or "90", in percent.
        """
        if self.facts < 2 or not np.isfinite(estimate):
            return None
        if self.end is not None:
            margin = wilson_margin(self.facts, level)
            return (0.0, margin) if self.end == 0.0 else (1.0 - margin, 1.0)
        defined = self.values[np.isfinite(self.values)]
        if len(defined) < (1 - MOST_UNDEFINED) * RESAMPLES or is_constant(defined):
            return None
        low, high = np.quantile(defined, LEVELS[level][:2])
        return min(float(low), estimate), max(float(high), estimate)


def resampled_mean(sums: Values, counts: Values) -> Values:
    """Returns the mean over the drawn rows, (resamples,); NaN in a resample without any row that has the figure."""
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def range_end(values: Collection[float]) -> float | None:
    """Returns 0.0 or 1.0 if all values of a share are that, otherwise None."""
    distinct = set(values)
    return float(distinct.pop()) if distinct in ({0.0}, {1.0}) else None


def wilson_margin(facts: int, level: str = "95") -> float:
    """Returns how far Wilson's interval of 0 in n reaches above 0, and that of n in n below 1: `z^2 / (n + z^2)`."""
    z = LEVELS[level][2]
    return z**2 / (facts + z**2)


def samples_at_end(end: float, facts: int, *purpose: object) -> Samples:
    """Returns a share that all facts agree on, 0 in n or n in n, in each resample.

    Resampling such facts always gives the same share. In its place values are drawn whose quantiles are the bounds of
    Wilson's intervals: at a distance of `z^2 / (n + z^2)` from the end, z from a normal distribution.

    Args:
        end: 0.0 or 1.0.
        purpose: what the values are for, such as model and figure; other purposes have independent values.
    """
    z = np.random.default_rng(draws.seed_of("end of range", *purpose)).standard_normal(RESAMPLES)
    distance = z**2 / (facts + z**2)
    return Samples(distance if end == 0.0 else 1.0 - distance, facts, end)


def is_constant(values: Values) -> bool:
    """Returns whether the values differ by rounding only."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))
