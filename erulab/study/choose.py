"""Chooses the best trials of an arm. The rule is the same for every arm, and uses no reported run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from erulab.evaluation.knowledge import rank_by_objective
from erulab.tuning.objective import TrialRun


class Match(Enum):
    """What all arms have in common before their knowledge left is compared."""

    utility = "utility"  # the share of the target's utility that is kept, at least
    kl = "kl"  # KL(target || unlearned) on retained rows in nats per token, at most
    weights = "weights"  # Euclidean distance of the weights from the target's, relative to their norm, at most

    @property
    def words(self) -> str:
        """The measure as it is shown beside its value."""
        names = {"utility": "utility kept", "kl": "KL on retained rows", "weights": "relative weight distance"}
        return names[self.value]


@dataclass(frozen=True)
class Bound:
    """The bound that an eligible trial keeps.

    limit: the least share of utility, or the largest distance.
    """

    match: Match
    limit: float


@dataclass(frozen=True)
class StudyRun(TrialRun):
    """One run of a trial.

    moved: how far its unlearned model is from the target, in the unit of `Match`; None where utility is matched, and if
        the run failed.
    """

    moved: float | None = None


@dataclass(frozen=True)
class TrialMean:
    """The means of a trial over its runs; infinitely bad if a run failed."""

    distance: float  # mean absolute knowledge left
    kept: float  # mean share of the target's utility
    moved: float = math.inf  # mean distance from the target

    def rank(self, bound: Bound) -> tuple[bool, float]:
        """Returns a key that is smaller for better trials: those within the bound by |K|, the others by what they miss.

        A distance is a bound from above, so it counts as utility does with its sign changed.
        """
        if bound.match is Match.utility:
            return rank_by_objective(self.distance, self.kept, bound.limit)
        return rank_by_objective(self.distance, -self.moved, -bound.limit)

    def matched(self, bound: Bound) -> float:
        """Returns the quantity that the bound is of."""
        return self.kept if bound.match is Match.utility else self.moved


def average_runs(runs: Sequence[StudyRun]) -> TrialMean:
    """Averages a trial's runs, one per world."""
    distances = [math.inf if run.knowledge is None else abs(run.knowledge) for run in runs]
    kept = [-math.inf if run.kept is None else run.kept for run in runs]
    moved = [math.inf if run.moved is None or not math.isfinite(run.moved) else run.moved for run in runs]
    return TrialMean(*(sum(values) / len(runs) for values in (distances, kept, moved)))


def best_trials(trials: Sequence[Sequence[StudyRun]], bound: Bound, count: int) -> list[int]:
    """Returns the indices of the best `count` trials, best first; of equal trials the earlier one is first.

    Args:
        trials: the runs of each trial.
        bound: what an eligible trial keeps.
        count: how many indices to return.
    """
    ranks = [average_runs(runs).rank(bound) for runs in trials]
    return sorted(range(len(trials)), key=lambda i: (ranks[i], i))[:count]
