"""A benchmark whose questions another program asks and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erulab.models.loaded import LoadedModel


@dataclass(frozen=True)
class ExternalScores:
    """What another program says about one model."""

    figures: dict[str, float]  # name in scores.json -> value
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # the same names -> 95 % interval
    details: dict[str, Any] = field(default_factory=dict)  # versions and settings, as plain values


class ExternalBenchmark(ABC):
    """A benchmark that has no rows: another program is given the model and returns figures.

    It is registered in the group `benchmark`, as data sets are that are measured beside the one that is unlearned.
    """

    name: str  # as it is registered; stands in front of its figures

    @abstractmethod
    def validate(self) -> None:
        """Checks before a worker starts that the program is there and that the options can be used, without torch.

        Raises:
            ConfigError, EnvironmentFault: one line each.
        """

    @abstractmethod
    def identity(self, cache: Path) -> dict[str, Any]:
        """Identifies what is asked as far as the options tell, by content where they name files.

        Args:
            cache: the run's cache folder.
        """

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """Loads all questions and returns plain values that identify them: part of the cache key of the scores.

        Raises:
            ConfigError, DataError: one line; the questions are unknown, unsafe to ask, or cannot be read.
        """

    @abstractmethod
    def score(self, loaded: LoadedModel, system: str | None) -> ExternalScores:
        """Has the program ask and score one model.

        Args:
            loaded: the model in evaluation mode, whole and on its device; nothing else uses it afterwards.
            system: the run's system turn, if it has one.
        """
