"""Decides by intervals, never by the absence of a difference: forgotten or not, robust or not, utility kept or not.

"Forgotten" is an equivalence test: it must be shown that what is left is smaller than a margin. A wide interval shows
nothing, so that few facts or a target that hardly knows them give "undecided" and never "forgotten".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

LEAST_UTILITY = 0.9  # share of the target's utility that counts as kept
LEAST_FACTS = 10  # fewer facts give no interval that could be believed
# More than this many times the facts at hand: the value lies at the margin, and no data set would decide.
MOST_TIMES = 100


class Outcome(Enum):
    """What the unlearned model still knows of the forget set."""

    forgotten = "forgotten"
    remains = "knowledge remains"
    over = "over-forgotten"
    undecided = "undecided"
    unmeasurable = "not measurable"


class Withstood(Enum):
    """Whether an attack brings knowledge back."""

    robust = "robust"
    back = "not robust"
    undecided = "undecided"


class Kept(Enum):
    """Whether the unlearned model keeps the target's utility."""

    kept = "kept"
    lost = "lost"
    undecided = "undecided"


@dataclass(frozen=True)
class Bounds:
    """An estimate with its 95 % interval (low, high) and its 90 % interval (low90, high90)."""

    value: float
    low: float
    high: float
    low90: float
    high90: float


def judge_knowledge_left(left: Bounds, margin: float) -> Outcome:
    """Judges knowledge left (K) against the oracle's, which is 0.

    *Forgotten*: the 90 % interval lies inside +-margin, that is, two one-sided tests at 5 % reject that K is at or
    beyond the margin (Schuirmann 1987). *Knowledge remains*, *over-forgotten*: the 95 % interval excludes 0 on that
    side, and the estimate is beyond the margin. *Undecided*: anything else.

    Args:
        left: K with its intervals.
        margin: the largest difference that does not matter, a share of what unlearning should remove.
    """
    if -margin < left.low90 and left.high90 < margin:
        return Outcome.forgotten
    if left.low > 0 and left.value > margin:
        return Outcome.remains
    if left.high < 0 and left.value < -margin:
        return Outcome.over
    return Outcome.undecided


def judge_attacked(left: Bounds, margin: float) -> Withstood:
    """Judges knowledge left after an attack.

    *Robust*: a one-sided test at 5 % shows that K is below the margin. *Not robust*: the 95 % interval lies above 0 and
    the estimate above the margin. An over-forgotten model that stays below the oracle counts as robust; that it is
    over-forgotten is judged apart.

    Args:
        left, margin: as for `judge_knowledge_left`.
    """
    if left.high90 < margin:
        return Withstood.robust
    return Withstood.back if left.low > 0 and left.value > margin else Withstood.undecided


def judge_utility(share: Bounds) -> Kept:
    """Judges the share of the target's utility that is kept.

    *Kept*: a one-sided test at 5 % shows that the share is at least 0.9. *Lost*: the 95 % interval lies below 0.9.
    """
    if share.low90 >= LEAST_UTILITY:
        return Kept.kept
    return Kept.lost if share.high < LEAST_UTILITY else Kept.undecided


def facts_that_decide(left: Bounds, margin: float, facts: int) -> int | None:
    """Estimates how many facts would decide an undecided K, if the estimate stayed the same.

    The interval's width falls with the square root of the number of facts. A K inside the margin is decided once its 90
    % interval is inside, too; a K beyond the margin once its 95 % interval excludes 0.

    Args:
        left, margin: as for `judge_knowledge_left`.
        facts: number of facts that K is measured on.
    Returns:
        The number, rounded up to two digits; None if the value lies so close to the margin that no number would do.
    """
    if abs(left.value) < margin:
        times = ((left.high90 - left.low90) / 2 / (margin - abs(left.value))) ** 2
    else:
        times = ((left.high - left.low) / 2 / abs(left.value)) ** 2
    if not times <= MOST_TIMES:
        return None
    needed = max(facts * times, facts + 1, LEAST_FACTS)
    unit = 10 ** max(int(math.log10(needed)) - 1, 0)
    return math.ceil(needed / unit) * unit
