"""Prints where a run is: stage k of n, the time so far, and about how much is left if earlier runs tell it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from erulab.options import Stage
from erulab.reporting.console import announce, announce_stage
from erulab.reporting.expected import expected_seconds
from erulab.reporting.numbers import duration
from erulab.stages.context import Context


class StageLines:
    """The lines between the stages of a run; rank 0 prints them."""

    def __init__(self, context: Context, folder: Path) -> None:
        """`folder`: of the run."""
        self._shows = context.ranks.first
        self._stages = shown_stages(context)
        self._expected: Mapping[Stage, float] = expected_seconds(folder) if self._shows else {}
        self._began = time.monotonic()

    def begin(self, stage: Stage) -> None:
        """Prints that a stage begins."""
        if not self._shows:
            return
        place = self._stages.index(stage)
        seconds = time.monotonic() - self._began
        announce_stage(place + 1, len(self._stages), stage.value, seconds, self._seconds_left(place))

    def end(self, *, from_cache: bool) -> None:
        """Prints that nothing had to be done for a stage, if so."""
        if self._shows and from_cache:
            announce("  taken from the cache")

    def finish(self) -> None:
        """Prints how long all stages took."""
        if self._shows:
            announce(f"all stages took {duration(time.monotonic() - self._began)}")

    def _seconds_left(self, place: int) -> float | None:
        """Returns the expected time of a stage and those after it; None if it is not known of all of them."""
        left = [self._expected.get(stage) for stage in self._stages[place:] if stage is not Stage.report]
        return None if None in left else sum(filter(None, left)) or None  # None too if all is in the cache


def shown_stages(context: Context) -> list[Stage]:
    """Returns the stages that a run has something to do in, in order."""
    config = context.config
    does = {
        Stage.target: config.model.target is None,
        Stage.oracle: not config.model.oracles,
        Stage.unlearn: context.unlearns,
        Stage.attack: context.attacks,
    }
    return [stage for stage in config.stages if does.get(stage, True)]
