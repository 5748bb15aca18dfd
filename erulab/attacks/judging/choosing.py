"""Chooses which of an attacker's attempts is reported: validation facts choose, and the other facts are reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from erulab.attacks.judging.figures import KEPT_GAP
from erulab.attacks.judging.metrics import Metric
from erulab.attacks.judging.trace import AttemptResult
from erulab.errors import DataError
from erulab.evaluation.knowledge import Values


def best_for_each_model(attempts: Sequence[AttemptResult], metric: Metric, validation: frozenset[str]) -> int:
    """Returns the index of the attempt under which one model knows the validation facts best; the first of equals.

    Raises:
        DataError: no row phrases a validation fact, or no row phrases another fact.
    """
    return int(np.argmax(validation_means(attempts, metric, validation)))


def best_for_all_models(
    attempts: Mapping[str, Sequence[AttemptResult]], metric: Metric, validation: frozenset[str], gap: float | None
) -> int:
    """Returns the index of the attempt with the largest K on the validation facts; all three models use it.

    If each model had its own best attempt, a prompt that only makes a model less sure of anything would be the best one
    for a model that knows nothing. An attempt that destroys the target's knowledge is not chosen while another attempt
    leaves it intact.

    Args:
        attempts: model -> the same attempts, in the same order.
        gap: difference of target and oracle without the attack; None if only the attack measures the figure.
    Raises:
        DataError: as `best_for_each_model`.
    """
    target, unlearned, oracle = (
        validation_means(attempts[model], metric, validation) for model in ("target", "unlearned", "oracle")
    )
    gaps = target - oracle
    needed = KEPT_GAP * (float(np.max(gaps, initial=-np.inf, where=np.isfinite(gaps))) if gap is None else gap)
    counts = np.isfinite(gaps) & np.isfinite(unlearned) & (gaps >= needed) & (gaps > 0)
    if not counts.any():
        return int(np.argmax(np.where(np.isfinite(gaps), gaps, -np.inf)))
    known = np.divide(unlearned - oracle, gaps, out=np.full_like(gaps, -np.inf), where=counts)
    return int(np.argmax(known))


def validation_means(attempts: Sequence[AttemptResult], metric: Metric, validation: frozenset[str]) -> Values:
    """Returns the figure's mean over validation rows per attempt, (attempts,); -inf if it is not finite."""
    rows = [
        [row.figures[metric.figure] for row in one.rows if row.suite in metric.suites and row.fact in validation]
        for one in attempts
    ]
    others = any(row.fact not in validation for row in attempts[0].rows)
    if not rows[0] or not others:
        raise DataError("too few facts to choose among attempts by one half and to report the other")
    means = np.array([np.mean(values) for values in rows], dtype=np.float64)
    return np.where(np.isfinite(means), means, -np.inf)
