"""No unlearning: the target as it is, the lower end of every comparison."""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.base import Trains
from erulab.methods.retrain import Retrain
from erulab.registry import methods


@dataclass
class NoneOptions:
    name: str = "none"


@methods.register("none", NoneOptions)
class NoMethod(Retrain):
    """The target, unchanged."""

    trains = Trains.nothing
