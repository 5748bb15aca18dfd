"""Unlearning Depth Score (UDS): how deep in the network the forgotten facts can no longer be read.

Source: Lee, Kim & Jo 2026, arXiv:2605.24614, equations 1 to 6, re-implemented. A row i has a value of several tokens;
s is the target's mean log-probability per token of the value, s_l the same with another model's states at layer l, at
the positions that predict these tokens (erulab.evaluation.depth.patching). With the drops

    gap_il  = s_i - s_il(states of the oracle)
    drop_il = s_i - s_il(states of the unlearned model)

the layers that hold the fact are those with gap_il > 0.05 nats per token, and over them

    UDS_i = sum_l gap_il clip(drop_il / gap_il, 0, 1) / sum_l gap_il,    UDS = mean_i UDS_i

0: the target reads the fact from the unlearned model's states as from its own; 1: as little as from the oracle's.
Layers count by their gap, because a ratio of small drops is mostly noise. A row whose gap is small at every layer is
left out and counted. A model that is broken, and not only rid of the fact, has 1 too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from erulab.evaluation.figures.resampling import FactResamples, Samples, range_end, resampled_mean, samples_at_end

THRESHOLD = 0.05  # nats per token; a layer holds a row's fact where the oracle's states cost more than this

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Depth:
    """UDS of one model.

    value: the mean over rows, in [0, 1]; None if no layer holds the fact of any row.
    interval: (low, high) of 95 %; None for the rows of a single fact.
    rows: (rows,) UDS of each row; NaN for a row without such a layer.
    layers: (layers,) share of the gap that is gone at each layer, over the rows with a gap there; NaN without any.
    """

    value: float | None
    interval: tuple[float, float] | None
    rows: Values
    layers: Values

    @property
    def count(self) -> int:
        """The number of rows that count."""
        return int(np.isfinite(self.rows).sum())


def depth_score(gap: Values, drop: Values, facts: Sequence[str]) -> Depth:
    """Computes UDS with an interval by bootstrap over facts.

    Args:
        gap: (rows, layers) by how much the oracle's states lower the target's log-probability, nats per token.
        drop: (rows, layers) the same for the unlearned model's states.
        facts: (rows,) the fact that each row phrases; rows of one fact are resampled together.
    """
    weights = np.where(gap > THRESHOLD, gap, 0.0)
    gone = np.clip(drop, 0.0, weights)  # gap clip(drop / gap, 0, 1)
    rows = _ratio(gone.sum(1), weights.sum(1))
    layers = _ratio(gone.sum(0), weights.sum(0))
    known = np.isfinite(rows)
    if not known.any():
        return Depth(None, None, rows, layers)
    interval = _mean_interval(rows[known], [fact for fact, one in zip(facts, known, strict=True) if one])
    return Depth(float(rows[known].mean()), interval, rows, layers)


def mean_gap(gap: Values) -> Values:
    """Returns the mean over rows of the gaps that count: (rows, layers) -> (layers,) nats per token."""
    return np.where(gap > THRESHOLD, gap, 0.0).mean(0)


def _ratio(above: Values, below: Values) -> Values:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _mean_interval(values: Values, facts: Sequence[str]) -> tuple[float, float] | None:
    """Returns the 95 % interval of a mean of shares, by bootstrap over facts; None for a single fact."""
    end, count = range_end(values.tolist()), len(set(facts))
    if end is not None:
        samples = samples_at_end(end, count, "uds")
    else:
        sums, counts = FactResamples(facts).resampled_sums(values[:, None])
        samples = Samples(resampled_mean(sums, counts)[:, 0], count)
    return samples.interval(float(values.mean()))
