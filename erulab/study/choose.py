"""Chooses the best trials of an arm. The rule is the same for every arm, and uses no reported run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from erulab.errors import ConfigError
from erulab.evaluation.knowledge import rank_by_objective
from erulab.typed import did_you_mean


@dataclass(frozen=True)
class TrialRun:
    """One run of a trial, on one world. A run that failed has neither figure.

    knowledge: knowledge left (K).
    kept: utility kept, as a share of the target's.
    """

    knowledge: float | None
    kept: float | None


def read_trial_run(scores: dict[str, dict[str, Any]] | None, utility: str) -> TrialRun:
    """Reads a trial's figures from the contents of scores.json.

    Args:
        scores: model -> figure -> value; None: the run failed.
        utility: name of the figure that utility is read from.
    Raises:
        ConfigError: a figure was not measured, so that no trial could be better than another.
    """
    if scores is None:
        return TrialRun(None, None)
    if absent := [model for model in ("target", "unlearned", "oracle") if model not in scores]:
        raise ConfigError(
            f"tuning.common: a trial is judged by knowledge left, but {' and '.join(absent)} were not scored; type "
            "stages=[target,oracle,unlearn,evaluate] there"
        )
    if utility not in scores["target"]:
        near = did_you_mean(utility, scores["target"])
        raise ConfigError(f"tuning.utility: {utility} is not a figure of the trials{near}; see their scores.json")
    target, unlearned = scores["target"].get(utility), scores["unlearned"].get(utility)
    return TrialRun(
        scores["unlearned"].get("knowledge_left"), None if not target or unlearned is None else unlearned / target
    )


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
