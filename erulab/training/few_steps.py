"""Warns of trainings with too few optimizer steps to say anything about a method. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from erulab.options import RunConfig
from erulab.training.batches import total_steps

FEWEST = 10  # optimizer steps; with fewer, the warm-up is one step and Adam's averages hold one or two gradients


def notes_on_few_steps(config: RunConfig, learned: Mapping[str, int], requests: Sequence[int]) -> list[str]:
    """Returns a line on each training of a run that takes fewer than FEWEST optimizer steps, with what to type.

    Args:
        learned: "target", "oracle" -> rows per epoch, of each model that the run learns.
        requests: rows of each request that the run unlearns.
    """
    target, trainer = config.target, config.trainer
    notes = [
        _note_on_few_steps(f"learning the {role}", "target", rows, target.epochs, target.global_batch, None)
        for role, rows in learned.items()
    ]
    if requests:
        shortest = "unlearning" if len(requests) == 1 else "unlearning the shortest request"
        notes.append(
            _note_on_few_steps(shortest, "trainer", min(requests), trainer.epochs, trainer.global_batch, trainer.steps)
        )
    return [note for note in notes if note is not None]


def _note_on_few_steps(
    doing: str, part: str, rows: int, epochs: float, global_batch: int, steps: int | None
) -> str | None:
    """Returns the line on one training; None if it takes enough steps, or has no rows, which is an error of its own.

    Args:
        part: of the config, with the training's options.
    """
    if not rows:
        return None
    count = total_steps(rows, epochs, global_batch, steps)
    if count >= FEWEST:
        return None
    if steps is not None:
        how, remedy = f"{part}.steps={steps}", f"{part}.steps={FEWEST} or more"
    else:
        how = f"{rows} rows x {epochs:g} epochs in batches of {global_batch}"
        remedy = f"{part}.epochs={math.ceil(FEWEST * global_batch / rows)}"
        fitting = int(rows * epochs / FEWEST)
        remedy += f" or {part}.global_batch={fitting}" if fitting else ""
    return (
        f"{doing} takes {count} optimizer step{'s' * (count > 1)} ({how}); fewer than {FEWEST} say little about a "
        f"method; type {remedy}"
    )
