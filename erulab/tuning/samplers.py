"""Optuna's samplers, made anew for every trial: what a trial's settings are does not depend on what a process drew
before, so a search that was killed goes on with the settings that it would have had."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from erulab import draws
from erulab.tuning.options import SamplerName
from erulab.tuning.space import Space


class SobolSampler(QMCSampler):
    """A scrambled Sobol sequence over a space that is known from the first trial on.

    Optuna's own sampler learns the space from the first trial, which it draws at random.
    """

    def __init__(self, space: Space, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(qmc_type="sobol", scramble=True, seed=seed)
        self._distributions = {key: entry.distribution for key, entry in space.items()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._distributions


def make_sampler(name: SamplerName, space: Space, seed: int, number: int) -> BaseSampler:
    """Returns the sampler of one trial.

    Args:
        seed: of the search.
        number: of the trial, from 0.
    """
    if name is SamplerName.qmc:
        return SobolSampler(space, seed)
    own: dict[str, Any] = {"seed": draws.seed_of("tuning", seed, number) % 2**32}
    return RandomSampler(**own) if name is SamplerName.random else TPESampler(**own)


def draw_points(space: Space, seed: int, count: int) -> list[list[str]]:
    """Returns the first points of a Sobol sequence as overrides, without a search on disk: which has the same."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=SobolSampler(space, seed))
    trials = [study.ask() for _ in range(count)]
    return [[f"{key}={entry.suggest(trial, key)}" for key, entry in space.items()] for trial in trials]
