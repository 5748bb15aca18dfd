"""Which of an attacker's attempts is reported: the validation facts choose, and others are reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from erulab.attacks.judging.figures import KEPT_GAP
from erulab.attacks.judging.trace import Tried
from erulab.errors import DataError
from erulab.evaluation.knowledge import Values

Metric = tuple[str, tuple[str, ...]]  # figure, suites


def for_each(attempts: Sequence[Tried], metric: Metric, validation: frozenset[str]) -> int:
    """The attempt under which one model knows the validation facts best; the earliest of equals.

    Raises:
        DataError: no row of a validation fact, or no other.
    """
    return int(np.argmax(_means(attempts, metric, validation)))


def for_all(
    attempts: Mapping[str, Sequence[Tried]], metric: Metric, validation: frozenset[str], gap: float | None
) -> int:
    """The attempt that brings back most: the largest K on the validation facts, the same attempt on all three models.

    Of each model's own best, a prompt that only makes it less sure of anything would be the best for a model that
    knows nothing. An attempt that destroys what the target knows does not count, as long as another one does not.

    Args:
        attempts: model -> the same attempts, in the same order.
        gap: of target and oracle without the attack; None where only the attack measures the figure.
    Raises:
        DataError: as `for_each`.
    """
    target, unlearned, oracle = (
        _means(attempts[model], metric, validation) for model in ("target", "unlearned", "oracle")
    )
    gaps = target - oracle
    needed = KEPT_GAP * (float(np.max(gaps, initial=-np.inf, where=np.isfinite(gaps))) if gap is None else gap)
    counts = np.isfinite(gaps) & np.isfinite(unlearned) & (gaps >= needed) & (gaps > 0)
    if not counts.any():
        return int(np.argmax(np.where(np.isfinite(gaps), gaps, -np.inf)))
    known = np.divide(unlearned - oracle, gaps, out=np.full_like(gaps, -np.inf), where=counts)
    return int(np.argmax(known))


def _means(attempts: Sequence[Tried], metric: Metric, validation: frozenset[str]) -> Values:
    """(attempts,) the figure's mean over validation rows; -inf where it is not finite."""
    figure, suites = metric
    rows = [
        [row.figures[figure] for row in one.rows if row.suite in suites and row.fact in validation] for one in attempts
    ]
    others = any(row.fact not in validation for row in attempts[0].rows)
    if not rows[0] or not others:
        raise DataError("too few facts to choose among attempts by one half and to report the other")
    means = np.array([np.mean(values) for values in rows], dtype=np.float64)
    return np.where(np.isfinite(means), means, -np.inf)
