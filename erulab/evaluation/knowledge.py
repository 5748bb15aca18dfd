"""Oracle-controlled knowledge: where a model stands between the oracle (0) and the target (1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from erulab import draws
from erulab.evaluation.evaluate import RowScore, knowledge_rows

RESAMPLES = 2000
# An attacked gap below this share of the unattacked one says nothing: the attack destroyed what it looks for.
LEAST_GAP = 0.2

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A ratio with its 95 % interval; None with the reason where it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    note: str = ""


def knowledge_of(rows: Sequence[RowScore]) -> tuple[Values, list[str]]:
    """(rows,) log-odds of the forget facts, and each row's fact."""
    known = knowledge_rows(rows)
    return np.array([row.figures["log_odds"] for row in known]), [row.fact for row in known]


def residual(model: Values, target: Values, oracle: Values, clusters: Sequence[str], least_gap: float = 0.0) -> Figure:
    """K = (mean model - mean oracle) / (mean target - mean oracle): 1 the target, 0 the oracle, below over-forgotten.

    Args:
        model, target, oracle: (rows,) a score of the same rows, such as log-odds.
        clusters: (rows,) the fact each row phrases; resampled together.
        least_gap: the denominator's lower 95 % bound must be above it.
    Returns:
        K with a paired bootstrap interval of the whole ratio (METHODS.md section 7).
    """
    if len(model) == 0:
        return Figure(None, None, None, "no forget row has wrong answers to hold its own against")
    if not np.isfinite([model, target, oracle]).all():
        return Figure(None, None, None, "undefined: not all scores are finite")
    sums = _cluster_sums(np.stack([model - oracle, target - oracle, np.ones_like(model)]), clusters)
    rng = np.random.default_rng(draws.seed_of("bootstrap", sums.shape[1]))
    picks = rng.multinomial(sums.shape[1], np.full(sums.shape[1], 1 / sums.shape[1]), size=RESAMPLES)
    above, gap, count = sums @ picks.T
    lower = float(np.quantile(gap / count, 0.025))
    if lower <= least_gap:
        bounds = f"lower bound {lower:.3g}, must be over {least_gap:.3g}"
        return Figure(None, None, None, f"undefined: target and oracle differ by too little ({bounds})")
    # A resample of few facts can have no gap at all: it has no ratio.
    ratios = np.divide(above, gap, out=np.full_like(above, np.nan), where=gap != 0)
    low, high = np.nanquantile(ratios, [0.025, 0.975])
    whole = sums.sum(1)
    return Figure(float(whole[0] / whole[1]), float(low), float(high))


def gap(target: Values, oracle: Values) -> float:
    """Mean difference of target and oracle."""
    return float(np.mean(target - oracle))


def _cluster_sums(values: Values, clusters: Sequence[str]) -> Values:
    """(quantities, clusters): sums of each cluster's rows."""
    names = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    index = [names[name] for name in clusters]
    sums = np.zeros((len(values), len(names)))
    for quantity, row in zip(sums, values, strict=True):
        np.add.at(quantity, index, row)
    return sums
