"""Reads a study from its YAML file: arms, the budget for tuning each, and the reported runs; or a study of figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from erulab.config.messages import error_line
from erulab.errors import ConfigError
from erulab.options import require, require_fraction, require_positive
from erulab.study.choose import Bound, Match
from erulab.study.figures_spec import FigureStudy
from erulab.tuning.space import Range, Space


@dataclass
class Round:
    """One round of tuning.

    trials: how many trials take part.
    runs: the overrides that each trial is run with, written as a sweep.
    """

    trials: int = MISSING
    runs: str = MISSING


@dataclass
class Tuning:
    """The tuning of every arm, with one budget for all."""

    # key -> lowest and highest value; trials are log-uniform between them
    space: dict[str, list[float]] = field(default_factory=dict)
    # method -> a space in place of `space`, for arms of a method with other options or other scales
    space_of_method: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)  # in each, the best trials of the round before take part
    utility: str = MISSING  # a figure of scores.json
    match: Match = Match.utility  # what is alike in all arms before knowledge left is compared
    kept: float = 0.97  # match=utility: share of the target's figure that an eligible trial keeps
    bound: Optional[float] = None  # match=kl or weights: the largest distance from the target of an eligible trial
    seed: int = 0  # draws the trials
    common: str = ""  # overrides of every trial

    def __post_init__(self) -> None:
        require(bool(self.space) and bool(self.rounds), "tuning", "a space and at least one round", self)
        for name, space in (("space", self.space), *self.space_of_method.items()):
            for key, bounds in space.items():
                ordered = len(bounds) == 2 and 0 < bounds[0] < bounds[1] < math.inf
                require(ordered, f"tuning.{name}.{key}", "[lowest, highest], both > 0", bounds)
        counts = [one.trials for one in self.rounds]
        falling = min(counts) > 0 and counts == sorted(counts, reverse=True)
        require(falling, "tuning.rounds", "with falling numbers of trials", counts)
        require(0 <= self.kept <= 1, "tuning.kept", "between 0 and 1", self.kept)
        if self.match is Match.utility:
            require(self.bound is None, "tuning.bound", "left out where tuning.match is utility", self.bound)
        else:
            given = self.bound is not None and 0 < self.bound < math.inf
            require(given, "tuning.bound", f"a number > 0 where tuning.match is {self.match.value}", self.bound)

    @property
    def limit(self) -> Bound:
        """What an eligible trial keeps."""
        return Bound(self.match, self.kept if self.bound is None else self.bound)


@dataclass
class Report:
    """The reported runs of each arm, with the values of its best trial."""

    runs: str = MISSING  # the overrides that each arm is run with, written as a sweep
    common: str = ""  # overrides of every reported run


@dataclass
class Attacker:
    """The attack that is tuned on every reported model, with one budget for all: target, unlearned model and oracle."""

    attack: str = "attack=relearn"  # overrides that choose one attack and its fixed options
    # key of the attack -> {low: , high: , log: true}, {factor: 10} (of its own value, both ways) or a list of choices
    space: dict[str, Any] = field(default_factory=dict)
    trials: int = 16  # settings that are tried on each model
    kept: float = 0.8  # share of its own utility that a model keeps after a setting that counts

    def __post_init__(self) -> None:
        require(bool(self.space), "attacker.space", "a key of the attack or more", self.space)
        require_positive("attacker.trials", self.trials)
        require_fraction("attacker.kept", self.kept)


@dataclass
class Study:
    """The contents of a study's YAML file.

    Overrides are written as on the command line: `a=1 b=2`. A list of values (`a=1,2`) stands for one of each.
    """

    arms: list[str] = MISSING
    tuning: Tuning = field(default_factory=lambda: Tuning(space={"trainer.lr": [1e-5, 1e-3]}, rounds=[Round(1, "")]))
    report: Report = field(default_factory=Report)
    attacker: Optional[Attacker] = None  # the attack that is tuned on the reported models; none by default
    common: str = ""

    def __post_init__(self) -> None:
        require(bool(self.arms), "arms", "a list of overrides", self.arms)


def read_study(file: Path) -> Study | FigureStudy:
    """Reads a study: of figures if the file has a section of that name, otherwise of methods.

    Raises:
        ConfigError: the file does not exist or holds no study.
        yaml.YAMLError: the file is no YAML.
    """
    if not file.is_file():
        raise ConfigError(f"{file} does not exist; name a YAML file such as launch/studies/embedded.yaml")
    try:
        loaded = OmegaConf.load(file)
        if not isinstance(loaded, DictConfig):
            raise ConfigError(f"{file} must hold the keys arms, tuning and report, or figures, not a list")
        schema = FigureStudy if "figures" in loaded else Study
        study: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), loaded))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{file}: {error_line(error)}") from error
    except RecursionError:
        raise ConfigError(
            f"{file}: nested without an end; an alias (*name) may not stand inside its own anchor"
        ) from None
    except ValueError as error:  # __post_init__, or no UTF-8
        raise ConfigError(f"{file}: {error}") from error
    assert isinstance(study, Study | FigureStudy)
    return study


def list_arms(study: Study) -> list[list[str]]:
    """Returns the overrides of each arm, in order."""
    return [arm for line in study.arms for arm in expand_sweep(line)]


def expand_sweep(line: str) -> list[list[str]]:
    """Expands a line as Hydra's sweeper does: `a=1,2 b=3` -> [[a=1, b=3], [a=2, b=3]]."""
    combinations: list[list[str]] = [[]]
    for override in OverridesParser.create().parse_overrides(line.split()):
        key = override.get_key_element()
        swept = override.is_sweep_override()
        values = list(override.sweep_string_iterator()) if swept else [override.get_value_element_as_str()]
        combinations = [[*before, f"{key}={value}"] for before in combinations for value in values]
    return combinations


def search_space(tuning: Tuning, arm: Sequence[str]) -> Space:
    """Returns the space of an arm; `method=NAME` among its overrides chooses it."""
    methods = [override.removeprefix("method=") for override in arm if override.startswith("method=")]
    space = next((tuning.space_of_method[name] for name in methods if name in tuning.space_of_method), tuning.space)
    return {key: Range(low, high, log=True) for key, (low, high) in space.items()}


def draw_trials(tuning: Tuning, arm: Sequence[str]) -> list[list[str]]:
    """Returns the overrides of each trial of an arm: points of a scrambled Sobol sequence, log-uniform in its space."""
    # Optuna takes half a second to import, which `--help` need not wait for.
    from erulab.tuning.samplers import draw_points

    return draw_points(search_space(tuning, arm), tuning.seed, tuning.rounds[0].trials)
