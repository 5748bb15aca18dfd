"""The robustness figures of METHODS.md section 7: what an attack brings back, in units of what the oracle lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from erulab.evaluation.knowledge import LEAST_GAP, Figure, Values, gap, residual

# An attack that destroys knowledge makes any hider look robust: it counts if the attacked target keeps this share
# of its gap to the attacked oracle, and this share of its own utility.
KEPT_GAP = 0.8
KEPT_UTILITY = 0.9
ONLY_ATTACKED = "undefined: this figure is measured by the attack only"
# What `figures` returns, but for its note.
FIGURES = (
    "target",
    "unlearned",
    "oracle",
    "attacked_target",
    "attacked_unlearned",
    "attacked_oracle",
    "residual",
    "residual_attacked",
    "recovered",
    "maintained_gap",
    "maintained_error",
    "low",
    "high",
)


@dataclass(frozen=True)
class Measured:
    """(rows,) one figure of the three models before and after an attack, on the same rows.

    None before: only the attack measures this figure (how often samples leak, what a probe reads).
    """

    target: Values | None
    unlearned: Values | None
    oracle: Values | None
    attacked_target: Values
    attacked_unlearned: Values
    attacked_oracle: Values

    @property
    def means(self) -> dict[str, float | None]:
        """Mean of each; None where there is none or it is not finite."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        means = {name: float("nan") if array is None else float(np.mean(array)) for name, array in arrays.items()}
        return {name: mean if np.isfinite(mean) else None for name, mean in means.items()}


def figures(measured: Measured, clusters: Sequence[str], *, score: bool) -> dict[str, Any]:
    """The figures of one row of attacks.json.

    Args:
        clusters: (rows,) the fact each row phrases.
        score: whether values are a score in [0, 1], whose distance to 1 is an error.
    Returns:
        means of the six arrays, `residual` (K), `residual_attacked` (K_A) with its interval `low`, `high`,
        `recovered` RF = (s(A(u)) - s(u)) / (s(target) - s(u)), `maintained_gap` = 1 - RF, `maintained_error` =
        (1 - s(A(u))) / (1 - s(u)), `note`. Undefined is None, with the reason in `note`.
    """
    m, means = measured, measured.means
    before, least = Figure(None, None, None, ONLY_ATTACKED), 0.0
    if m.target is not None and m.unlearned is not None and m.oracle is not None:
        before = residual(m.unlearned, m.target, m.oracle, clusters)
        least = LEAST_GAP * max(gap(m.target, m.oracle), 0.0)
    after = residual(m.attacked_unlearned, m.attacked_target, m.attacked_oracle, clusters, least)
    recovered, why_recovered = _recovered(means)
    error, why_error = _maintained_error(means, score)
    reasons = {
        "residual": before.note,
        "residual_attacked": after.note,
        "recovered and maintained_gap": why_recovered,
        "maintained_error": why_error,
    }
    return {
        **means,
        "residual": before.value,
        "residual_attacked": after.value,
        "recovered": recovered,
        "maintained_gap": None if recovered is None else 1 - recovered,
        "maintained_error": error,
        "low": after.low,
        "high": after.high,
        "note": "; ".join(f"{name} {reason}" for name, reason in reasons.items() if reason),
    }


def validity(measured: Measured, utility: float, attacked_utility: float) -> tuple[bool, str]:
    """Whether an attack counts, and why not: it must leave the target its gap to the oracle, and its utility.

    Args:
        measured: of the headline figure.
        utility, attacked_utility: the target's mean score on retain rows, in [0, 1].
    """
    after = gap(measured.attacked_target, measured.attacked_oracle)
    before = after
    if measured.target is not None and measured.oracle is not None:
        before = gap(measured.target, measured.oracle)
    reasons = []
    if not before > 0:
        reasons.append("the target knows no more than the oracle")
    elif not after >= KEPT_GAP * before:
        reasons.append(f"the attacked target keeps {after / before:.2f} of its gap to the oracle")
    if not attacked_utility >= KEPT_UTILITY * utility:
        reasons.append(f"the attacked target's utility is {attacked_utility:.2f}, was {utility:.2f}")
    return not reasons, f"not valid: {' and '.join(reasons)}" if reasons else ""


def _recovered(means: dict[str, float | None]) -> tuple[float | None, str]:
    target, unlearned, attacked = means["target"], means["unlearned"], means["attacked_unlearned"]
    if target is None or unlearned is None or attacked is None:
        return None, "undefined: not all scores are there and finite"
    if not target > unlearned:
        return None, "undefined: the unlearned model scores no lower than the target"
    return (attacked - unlearned) / (target - unlearned), ""


def _maintained_error(means: dict[str, float | None], score: bool) -> tuple[float | None, str]:
    unlearned, attacked = means["unlearned"], means["attacked_unlearned"]
    if not score:
        return None, "undefined: log-odds have no error"
    if unlearned is None or attacked is None:
        return None, "undefined: not all scores are finite"
    if not unlearned < 1:
        return None, "undefined: the unlearned model makes no error"
    return (1 - attacked) / (1 - unlearned), ""
