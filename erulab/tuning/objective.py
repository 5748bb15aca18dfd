"""The objective of a run: how little of the knowledge is left, and how much utility is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erulab.errors import ConfigError
from erulab.evaluation.knowledge import rank_by_objective
from erulab.tuning.options import Goal, ObjectiveOptions
from erulab.typed import did_you_mean

# The share that a report calls utility kept; its figure depends on the data set.
UTILITY_KEPT = "utility_kept"


@dataclass(frozen=True)
class TrialRun:
    """One run of a trial. A run that failed has neither figure.

    knowledge: knowledge left (K).
    kept: utility kept, as a share of the target's.
    """

    knowledge: float | None
    kept: float | None

    @property
    def lost(self) -> float | None:
        """The share of the target's utility that is lost; 0 if it grew."""
        return None if self.kept is None else max(0.0, 1.0 - self.kept)

    def rank(self, least: float) -> tuple[bool, float]:
        """Returns a key that is smaller for better runs. `least`: as for `rank_by_objective`."""
        distance = math.inf if self.knowledge is None else abs(self.knowledge)
        return rank_by_objective(distance, -math.inf if self.kept is None else self.kept, least)


def read_trial_run(scores: Mapping[str, Mapping[str, Any]] | None, utility: str | None, where: str) -> TrialRun:
    """Reads the figures of a run from the contents of scores.json.

    Args:
        scores: model -> figure -> value; None: the run failed.
        utility: name of the figure that utility is read from; None: the report's.
        where: the key that names it, for messages.
    Raises:
        ConfigError: a figure was not measured, so that no run could be better than another.
    """
    if scores is None:
        return TrialRun(None, None)
    if absent := [model for model in ("target", "unlearned", "oracle") if model not in scores]:
        raise ConfigError(
            f"{where.rpartition('.')[0]}.common: a trial is judged by knowledge left, but {' and '.join(absent)} were "
            "not scored; type stages=[target,oracle,unlearn,evaluate] there"
        )
    knowledge = scores["unlearned"].get("knowledge_left")
    if utility is None:
        if UTILITY_KEPT not in scores["unlearned"]:
            raise ConfigError(f"{where}: the data set has no figure of utility of its own; type {where}=FIGURE")
        return TrialRun(knowledge, scores["unlearned"][UTILITY_KEPT])
    if utility not in scores["target"]:
        near = did_you_mean(utility, scores["target"])
        raise ConfigError(f"{where}: {utility} is not a figure of the trials{near}; see their scores.json")
    target, unlearned = scores["target"].get(utility), scores["unlearned"].get(utility)
    return TrialRun(knowledge, None if not target or unlearned is None else unlearned / target)


def objective_values(run: TrialRun, options: ObjectiveOptions) -> list[float] | None:
    """Returns what is minimised: one number, or |K| and utility lost; None if the run has no such number.

    |K| + penalty * max(0, floor - utility kept): a model that forgets nothing has 1, one at the oracle's level has 0,
    and over-forgetting counts as much as what is left.
    """
    if run.knowledge is None or run.kept is None or run.lost is None:
        return None
    if options.goal is Goal.pareto:
        return [abs(run.knowledge), run.lost]
    return [abs(run.knowledge) + options.penalty * max(0.0, options.floor - run.kept)]
