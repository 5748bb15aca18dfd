"""Chooses the best trials of an arm. The rule is the same for every arm, and uses no reported run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from erulab.evaluation.knowledge import rank_by_objective
from erulab.tuning.objective import TrialRun


@dataclass(frozen=True)
class TrialMean:
    """The means of a trial over its runs; infinitely bad if a run failed."""

    distance: float  # mean absolute knowledge left
    kept: float  # mean share of the target's utility

    def rank(self, least: float) -> tuple[bool, float]:
        """Returns a key that is smaller for better trials. `least`: as for `rank_by_objective`."""
        return rank_by_objective(self.distance, self.kept, least)


def average_runs(runs: Sequence[TrialRun]) -> TrialMean:
    """Averages a trial's runs, one per world."""
    distances = [math.inf if run.knowledge is None else abs(run.knowledge) for run in runs]
    kept = [-math.inf if run.kept is None else run.kept for run in runs]
    return TrialMean(sum(distances) / len(runs), sum(kept) / len(runs))


def best_trials(trials: Sequence[Sequence[TrialRun]], least: float, count: int) -> list[int]:
    """Returns the indices of the best `count` trials, best first; of equal trials the earlier one is first.

    Args:
        trials: the runs of each trial.
        least: share of the target's utility that an eligible trial keeps.
        count: how many indices to return.
    """
    ranks = [average_runs(runs).rank(least) for runs in trials]
    return sorted(range(len(trials)), key=lambda i: (ranks[i], i))[:count]
