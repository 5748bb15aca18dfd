"""Options of a search. Hydra reads them on every start, so nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional

from erulab.options import require, require_fraction, require_not_negative, require_positive


class Goal(Enum):
    knowledge = "knowledge"  # |knowledge left|, plus penalty times what utility lacks to the floor
    pareto = "pareto"  # |knowledge left| and utility lost, both at once


class SamplerName(Enum):
    tpe = "tpe"  # tree-structured Parzen estimator: learns from finished trials, after ten random ones
    qmc = "qmc"  # scrambled Sobol sequence: fills the space evenly
    random = "random"


@dataclass
class ObjectiveOptions:
    """What makes one run better than another."""

    goal: Goal = Goal.knowledge  # what is minimised
    floor: float = 0.9  # share of the target's utility that a run should keep
    penalty: float = 10.0  # what a whole utility below the floor costs, in units of knowledge left
    # the figure of scores.json that utility is read from, such as retain/probability; null: the report's
    utility: Optional[str] = None

    def __post_init__(self) -> None:
        require_fraction("floor", self.floor)
        require_not_negative("penalty", self.penalty)
        require(self.utility is None or bool(self.utility), "utility", "a figure of scores.json or null", self.utility)


@dataclass
class TuningOptions(ObjectiveOptions):
    """The options of `hydra/sweeper=erulab_tune`, typed as hydra.sweeper.KEY=VALUE."""

    trials: int = 20  # of the whole search: a larger number continues it
    sampler: SamplerName = SamplerName.tpe  # what chooses the settings of a trial
    seed: int = 0  # draws the trials
    at_once: Optional[int] = None  # trials that are started together; null: as many as the launcher runs at once
    # key -> {low: , high: , log: true}, {factor: 10} (of the run's own value, both ways) or a list of choices
    space: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("trials", self.trials)
        require(0 <= self.seed < 2**31, "seed", "between 0 and 2^31 - 1", self.seed)
        require_positive("at_once", self.at_once)
