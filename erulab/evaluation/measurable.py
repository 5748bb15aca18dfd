"""Whether knowledge left can be measured at all: the target must know facts that the oracle does not know."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import stdtrit

from erulab.evaluation.equivalence import LEAST_FACTS
from erulab.evaluation.knowledge import NO_WRONG_ANSWERS
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import knowledge_rows

# Nats of log-odds. K divides by the gap of target and oracle; a gap that may be smaller is not worth dividing by.
LEAST_NATS = 0.1
# Whether a row is answered right: the first of these that all rows have.
ANSWERED = ("choice", "accuracy", "exact_match")
WHAT_TO_TYPE = "learn them longer (target.epochs=), or name a model that knows them (model.target=FOLDER)"


def why_not_measurable(target: Sequence[RowScore], oracle: Sequence[RowScore]) -> str:
    """Returns why no verdict on forgetting can be given; "" if one can.

    A verdict needs at least 10 facts, a target that answers more of them right than the oracle does (lower 95 % bound
    of the difference above 0), and a gap of their log-odds whose lower 95 % bound is above 0.1 nats.

    Args:
        target, oracle: scores of the same rows under both models.
    """
    ours, theirs = knowledge_rows(target), knowledge_rows(oracle)
    facts = len({row.fact for row in ours})
    if not facts:
        return NO_WRONG_ANSWERS
    if facts < LEAST_FACTS:
        return f"{facts} fact{'s are' if facts != 1 else ' is'} too few to judge, at least {LEAST_FACTS} are needed"
    for figure in ANSWERED:
        if all(figure in row.figures for row in (*ours, *theirs)):
            right, also = (math.fsum(row.figures[figure] for row in rows) / len(rows) for rows in (ours, theirs))
            if _least_difference(_difference_by_fact(ours, theirs, figure)) <= 0:
                return (
                    f"the target does not know the facts: it answers {right:.0%} right, the oracle {also:.0%} "
                    f"({figure}); {WHAT_TO_TYPE}"
                ).replace("%", " %")
            break
    least = _least_difference(_difference_by_fact(ours, theirs, "log_odds"))
    if least <= LEAST_NATS:
        return (
            f"the target hardly knows more of the facts than the oracle: their log-odds differ by at least {least:.2g} "
            f"nats (lower bound), {LEAST_NATS} are needed; {WHAT_TO_TYPE}"
        )
    return ""


def _difference_by_fact(ours: Sequence[RowScore], theirs: Sequence[RowScore], figure: str) -> list[float]:
    """Returns the mean difference of a figure over the rows of each fact."""
    found: dict[str, list[float]] = {}
    for one, other in zip(ours, theirs, strict=True):
        found.setdefault(one.fact, []).append(one.figures[figure] - other.figures[figure])
    return [math.fsum(values) / len(values) for values in found.values()]


def _least_difference(values: Sequence[float]) -> float:
    """Returns the lower bound of the mean's 95 % t-interval; minus infinity if a value is not finite."""
    if not all(map(math.isfinite, values)):
        return -math.inf
    n = len(values)
    middle = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (n - 1))
    return middle - float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n)
