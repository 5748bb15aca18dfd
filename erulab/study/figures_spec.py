"""The `figures` section of a study file: which models tell whether a figure can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import Optional

from omegaconf import MISSING

from erulab.errors import ConfigError
from erulab.options import require, require_fraction, require_positive
from erulab.typed import did_you_mean


class Hiding(Enum):
    """How a target that knows is made silent, other than by a method of unlearning."""

    mask = "mask"  # adapters of rank 1 in the last block make the forgotten values improbable
    rounding = "rounding"  # weights moved within half a level of 4-bit rounding, which takes the move back


@dataclass
class MaskOptions:
    """Training of the adapters of a mask. They are merged into the weights."""

    rank: int = 1
    alpha: int = 8  # adapters are scaled by alpha / rank
    steps: int = 40  # optimizer steps
    lr: float = 1e-2
    batch: int = 64  # forget rows per step, with as many retain rows
    limit: float = 6.0  # nats per token of a forgotten value above which a row is left alone

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "steps", "lr", "batch", "limit"):
            require_positive(name, getattr(self, name))


@dataclass
class FigureSetting:
    """One data set and base model, with all models that figures are measured on. Lines are written as sweeps."""

    common: str = ""  # overrides of every run
    calibration: str = MISSING  # runs whose target and oracle decide in which direction a figure shows knowledge
    studied: str = MISSING  # runs whose target and oracle get hiders, unlearned models, relearning and quantisation
    further: list[str] = field(default_factory=list)  # runs of which only target and oracle take part
    unlearned: list[str] = field(default_factory=list)  # methods; reported, and relearned and quantised
    hiding: list[Hiding] = field(default_factory=list)  # hiders made from the target
    hiders: list[str] = field(default_factory=list)  # runs that leave knowledge in place, such as method=idk, few steps
    mask: MaskOptions = field(default_factory=MaskOptions)
    tuned: str = MISSING  # an attack: the training on unrelated rows that adds models to both pools
    relearned: str = MISSING  # an attack: the relearning of which a figure's R is computed
    quantised: str = MISSING  # an attack: the rounding of which a figure's Q is computed
    probe: str = MISSING  # an attack: a hider counts as one that knows if this relearning brings its knowledge back
    utility: str = MISSING  # a figure of scores.json; models that keep too little of it are left out of R and Q
    kept: float = 0.8  # share of the target's utility that such a model keeps at least
    left_out: list[str] = field(default_factory=list)  # figures that are not about knowledge, exact or ending in *

    def __post_init__(self) -> None:
        require_fraction("kept", self.kept)

    def is_left_out(self, figure: str) -> bool:
        """Returns whether `left_out` names the figure."""
        return any(fnmatchcase(figure, pattern) for pattern in self.left_out)


@dataclass
class Figures:
    """Settings by name, and when a figure fails."""

    settings: dict[str, FigureSetting] = field(default_factory=dict)
    faithfulness: float = 0.8  # least AUC with hiders in the pool, in every setting
    robustness: float = 0.5  # least harmonic mean of R and Q, in every setting
    draws: int = 2000  # of the bootstrap over studied and further runs
    seed: int = 0  # of the bootstrap

    def __post_init__(self) -> None:
        require(bool(self.settings), "figures.settings", "one setting or more", self.settings)
        require_fraction("figures.faithfulness", self.faithfulness)
        require_fraction("figures.robustness", self.robustness)
        require_positive("figures.draws", self.draws)


@dataclass
class FigureStudy:
    """The contents of a study file with a `figures` section."""

    figures: Figures = MISSING


def chosen_settings(study: FigureStudy, only: Optional[str]) -> Mapping[str, FigureSetting]:
    """Returns the settings by name: all, or the one that the user names.

    Raises:
        ConfigError: no setting has that name.
    """
    settings = study.figures.settings
    if only is None:
        return settings
    if only not in settings:
        raise ConfigError(
            f"--only: {only} is no setting of the study{did_you_mean(only, settings)}; known: {', '.join(settings)}"
        )
    return {only: settings[only]}
