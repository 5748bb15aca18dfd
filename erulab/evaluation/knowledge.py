"""Knowledge left, K: where a model stands between the oracle (0) and the target (1)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from erulab import draws
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import knowledge_rows

RESAMPLES = 2000
# If an attack shrinks the gap between target and oracle below this share of the gap before it, it destroyed the
# knowledge it looks for, and K after it is undefined.
LEAST_GAP = 0.2
NO_WRONG_ANSWERS = "no scored forget row has wrong answers to compare the right one with"

Values = NDArray[np.float64]


@dataclass(frozen=True)
class RatioEstimate:
    """A ratio with its intervals. All are None if it is undefined; `reason` then says why.

    A ratio of a single fact has no interval: how others would differ from it cannot be known.

    low, high: the 95 % interval.
    low90, high90: the 90 % interval, which the equivalence test uses (two one-sided tests at 5 %).
    """

    value: float | None
    low: float | None
    high: float | None
    low90: float | None
    high90: float | None
    reason: str = ""

    @classmethod
    def undefined(cls, reason: str) -> RatioEstimate:
        """Returns an estimate without a value."""
        return cls(None, None, None, None, None, reason)


def knowledge_values(rows: Sequence[RowScore]) -> tuple[Values, list[str]]:
    """Returns the log-odds of the rows that phrase forgotten facts, (rows,) nats, and the fact of each."""
    known = knowledge_rows(rows)
    return np.array([row.figures["log_odds"] for row in known]), [row.fact for row in known]


def knowledge_left(
    model: Values, target: Values, oracle: Values, clusters: Sequence[str], least_gap: float = 0.0
) -> RatioEstimate:
    """Computes K = (mean model - mean oracle) / (mean target - mean oracle).

    1 is the target and 0 is the oracle, or the mean of several; a model below 0 is over-forgotten.

    Args:
        model, target: (rows,) a score of the same rows under each model, such as log-odds.
        oracle: (rows,), or (oracles, rows) under each of several oracles.
        clusters: (rows,) the fact that each row phrases; rows of one fact are resampled together.
        least_gap: K is undefined unless the lower 95 % bound of the denominator is above this.
    Returns:
        K with a paired bootstrap interval of the whole ratio. With several oracles it covers their spread, too.
    """
    if len(model) == 0:
        return RatioEstimate.undefined(NO_WRONG_ANSWERS)
    oracles = np.atleast_2d(oracle)
    if not np.isfinite([model, target, *oracles]).all():
        return RatioEstimate.undefined("not all scores are finite")
    zero = oracles.mean(0)
    sums = _cluster_sums(np.stack([model - zero, target - zero, np.ones_like(model)]), clusters)
    picks = _resamples(sums.shape[1])
    above, gap, count = sums @ picks.T
    if len(oracles) > 1:
        shift = _shifts_of_zero(_cluster_sums(oracles - zero, clusters) @ picks.T)
        above, gap = above - shift, gap - shift
    lower = float(np.quantile(gap / count, 0.025))
    if lower <= least_gap:
        bounds = f"lower bound {lower:.3g}, must be over {least_gap:.3g}"
        return RatioEstimate.undefined(f"target and oracle differ by too little ({bounds})")
    # With few facts a resample can have a gap of 0, and then has no ratio.
    ratios = np.divide(above, gap, out=np.full_like(above, np.nan), where=gap != 0)
    low, low90, high90, high = map(float, np.nanquantile(ratios, [0.025, 0.05, 0.95, 0.975]))
    whole = sums.sum(1)
    ratio = float(whole[0] / whole[1])
    if sums.shape[1] == 1:
        return RatioEstimate(ratio, None, None, None, None)
    return RatioEstimate(ratio, low, high, low90, high90)


def rank_by_objective(distance: float, kept: float, least: float) -> tuple[bool, float]:
    """Returns a key that is smaller for better models: |K|, under a floor of utility.

    Models that keep at least `least` of the utility come first, by |K|; the others follow, by what they keep.

    Args:
        distance: |K|; infinite if K is undefined.
        kept: utility as a share of the target's; minus infinity if it is undefined.
        least: the floor, a share of the target's utility.
    """
    eligible = kept >= least
    return not eligible, distance if eligible else -kept


def least_gap_bound(target: Values, oracle: Values, clusters: Sequence[str]) -> float:
    """Returns the lower 95 % bound of the mean difference of target and oracle; minus infinity if it is not finite.

    Args:
        target, oracle, clusters: as for `knowledge_left`, of one oracle.
    """
    if len(target) == 0 or not np.isfinite([target, oracle]).all():
        return -np.inf
    sums = _cluster_sums(np.stack([target - oracle, np.ones_like(target)]), clusters)
    gap, count = sums @ _resamples(sums.shape[1]).T
    return float(np.quantile(gap / count, 0.025))


def mean_gap(target: Values, oracle: Values) -> float:
    """Returns the mean difference of target and oracle over rows."""
    return float(np.mean(target - oracle))


@functools.lru_cache(maxsize=8)
def _resamples(clusters: int) -> Values:
    """Returns how often each resample draws each cluster, (RESAMPLES, clusters); a function of their number only."""
    rng = np.random.default_rng(draws.seed_of("bootstrap", clusters))
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=RESAMPLES).astype(np.float64)


def _shifts_of_zero(deviations: Values) -> Values:
    """Draws how far the mean of all possible oracles lies from the mean of those there are.

    A few oracles tell their spread only roughly, so the shift has Student's t distribution with oracles - 1 degrees of
    freedom: a Gaussian combination of the deviations with the variance s^2 / oracles of their mean, divided by
    sqrt(chi^2 / (oracles - 1)). Drawing the oracles themselves with replacement, even with deviations scaled by
    sqrt(oracles / (oracles - 1)), has the right variance, but its tails are too light where oracles differ as much as
    facts do: in simulations its 95 % intervals of 3 oracles held the true value in 90 to 95 % of studies, these in 96
    to 98 %.

    Args:
        deviations: (oracles, resamples) each oracle minus their mean, on each resample's facts.
    Returns:
        (resamples,) in the unit of `deviations`.
    """
    oracles, resamples = deviations.shape
    # A generator of its own: a single oracle's resamples must not change.
    rng = np.random.default_rng(draws.seed_of("oracles", oracles))
    weights = rng.standard_normal((oracles, resamples))
    scale = np.sqrt(oracles * rng.chisquare(oracles - 1, resamples))
    shifts: Values = (weights * deviations).sum(0) / scale
    return shifts


def _cluster_sums(values: Values, clusters: Sequence[str]) -> Values:
    """Sums the rows of each cluster.

    Args:
        values: (quantities, rows).
        clusters: (rows,) the cluster of each row.
    Returns:
        (quantities, clusters).
    """
    names = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    index = [names[name] for name in clusters]
    sums = np.zeros((len(values), len(names)))
    for quantity, row in zip(sums, values, strict=True):
        np.add.at(quantity, index, row)
    return sums
