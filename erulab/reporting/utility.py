"""The verdict on utility: the share of the target's figure on knowledge that must stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erulab.evaluation.equivalence import LEAST_UTILITY, Bounds, Kept, judge_utility
from erulab.evaluation.utility import utility_figure
from erulab.reporting.bounds import read_bounds
from erulab.reporting.numbers import number, percent

COLLAPSE = 0.5  # a model that keeps less than this share of the target's utility has collapsed


@dataclass(frozen=True)
class Utility:
    """The target's and the unlearned model's figure on knowledge that must stay.

    figure: the metric of scores.json that they are read from.
    n: rows it was measured on.
    share: the unlearned model's figure over the target's, with its intervals; None if these are not known.
    note: why utility is unknown.
    """

    figure: str
    n: int | None
    target: float | None
    unlearned: float | None
    share: Bounds | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.unlearned / self.target if self.unlearned is not None and self.target else None

    @property
    def collapsed(self) -> bool:
        return self.ratio is not None and self.ratio < COLLAPSE

    @property
    def outcome(self) -> Kept:
        """Whether at least 0.9 of the target's utility is kept; undecided without an interval."""
        return Kept.undecided if self.share is None else judge_utility(self.share)

    @property
    def words(self) -> str:
        if self.ratio is None:
            return f"utility kept: unknown, {self.note}"
        # A model can do better than the target by chance; a share above all of it says no more than "all of it".
        least, shown = percent(LEAST_UTILITY), percent(min(self.ratio, 1.0))
        if self.share is None:
            return f"utility undecided: {shown} of the target's is kept, without an interval"
        low, high = (percent(min(max(end, 0.0), 1.0)) for end in (self.share.low, self.share.high))
        said = f"{shown}, 95 % interval [{low}, {high}]"
        if self.outcome is Kept.kept:
            return f"utility kept: {said}"
        if self.outcome is Kept.lost:
            return f"utility lost: {said} of the target's is kept, less than {least}"
        return f"utility undecided: {said} of the target's is kept, at least {least} should be"


def read_utility(scores: Mapping[str, Mapping[str, Any]]) -> Utility:
    """Reads utility from the contents of scores.json: model -> figure -> value."""
    target, unlearned = scores.get("target", {}), scores.get("unlearned", {})
    if not target or not unlearned:
        absent = " and ".join(m for m, s in (("target", target), ("unlearned", unlearned)) if not s)
        return Utility("", None, None, None, note=f"no scores of the {absent}")
    figure = utility_figure(target, unlearned)
    if figure is None:
        return Utility("", None, None, None, note="no retain figure was scored")
    n = number(unlearned.get(f"{figure.split('/')[0]}/n"))
    before = number(target[figure])
    note = "" if before else f"the target's {figure} is 0"
    share = read_bounds(unlearned, "utility_kept", "utility_kept_")
    return Utility(figure, None if n is None else int(n), before, number(unlearned[figure]), share, note)
