"""Bytes that a run's trainings write to the cache in closed form: models, which stay, and checkpoints, which do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingFiles:
    """What one training writes, in bytes.

    model: kept.
    checkpoint: one resumable state: each trained weight in float32, and its optimizer's state.
    checkpoints: the most that are there at once.
    """

    model: float
    checkpoint: float
    checkpoints: int


def most_checkpoints(steps: int, save_every: int | None, kept: int) -> int:
    """Returns how many checkpoints of a training are there at once: those that are kept, and the one that is written.

    Args:
        steps: of the training; none is saved after the last one.
        save_every: steps between checkpoints; None: only a signal makes one, which is not counted.
        kept: checkpoints that stay when a new one is whole.
    """
    return 0 if save_every is None else min(kept + 1, (steps - 1) // save_every)


def bytes_at_most(trainings: Sequence[TrainingFiles]) -> float:
    """Returns the most bytes that trainings, one after another, hold on the disk.

    The checkpoints of a training are removed once its model is written.
    """
    models, most = 0.0, 0.0
    for one in trainings:
        models += one.model
        most = max(most, models + one.checkpoint * one.checkpoints)
    return most
