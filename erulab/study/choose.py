"""Which trial of an arm is best: the rule is the same for every arm, and no reported run has a part in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from erulab.errors import ConfigError
from erulab.typed import did_you_mean


@dataclass(frozen=True)
class Tried:
    """One trial on one world. `knowledge`: K; `kept`: share of the target's utility. A run that failed has neither."""

    knowledge: float | None
    kept: float | None


def tried(scores: dict[str, dict[str, Any]] | None, utility: str) -> Tried:
    """What scores.json says of a trial; None: the run failed.

    Raises:
        ConfigError: its figures are never measured, so that every trial would be as bad as any other.
    """
    if scores is None:
        return Tried(None, None)
    if absent := [model for model in ("target", "unlearned", "oracle") if model not in scores]:
        raise ConfigError(
            f"tuning.common: a trial is judged by K, and {' and '.join(absent)} were not scored; type "
            "stages=[target,oracle,unlearn,evaluate] there"
        )
    if utility not in scores["target"]:
        near = did_you_mean(utility, scores["target"])
        raise ConfigError(f"tuning.utility: {utility} is no figure of the trials{near}; see their scores.json")
    target, unlearned = scores["target"].get(utility), scores["unlearned"].get(utility)
    return Tried(scores["unlearned"].get("residual"), None if not target or unlearned is None else unlearned / target)


@dataclass(frozen=True)
class Standing:
    """A trial over the worlds it has run on: means, infinitely bad where a run failed."""

    distance: float  # mean |K|
    kept: float  # mean share of the target's utility

    def rank(self, least: float) -> tuple[bool, float]:
        """Smaller is better: those that keep `least` by |K|, behind them the others by what they keep."""
        eligible = self.kept >= least
        return not eligible, self.distance if eligible else -self.kept


def standing(runs: Sequence[Tried]) -> Standing:
    """A trial's runs, one a world."""
    distances = [math.inf if run.knowledge is None else abs(run.knowledge) for run in runs]
    kept = [-math.inf if run.kept is None else run.kept for run in runs]
    return Standing(sum(distances) / len(runs), sum(kept) / len(runs))


def best(trials: Sequence[Sequence[Tried]], least: float, count: int) -> list[int]:
    """Indices of the best `count` trials, best first; ties go to the earlier one."""
    ranks = [standing(runs).rank(least) for runs in trials]
    return sorted(range(len(trials)), key=lambda i: (ranks[i], i))[:count]
