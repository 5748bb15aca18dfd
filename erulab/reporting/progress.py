"""Shows how far a training, a scoring or the attacks are: a bar in a terminal, otherwise a line now and then.

Without a terminal the lines become rarer the longer the work takes: the log of a night has a hundred, not thousands.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from erulab.reporting.escape import visible
from erulab.reporting.numbers import duration

# Seconds between two lines without a terminal: at first, as a share of the time that the work has taken, at most.
FIRST_WAIT, WAIT_SHARE, LONGEST_WAIT = 10.0, 0.1, 300.0
BAR_WIDTH = 16
OTHER_WIDTH = 24  # of count, elapsed time and the gaps between the columns
REDRAWN_PER_SECOND = 2  # every redrawing goes through the worker's log
SHOWN = {"loss": "loss", "forget_loss": "forget", "retain_loss": "retain"}


class Progress:
    """How far a piece of work is, whose parts are counted: steps, rows, attacks."""

    def __init__(self, title: str, total: int, enabled: bool = True) -> None:
        """
        Args:
            total: number of parts; 0 while it is not known.
            enabled: whether anything is shown (rank 0).
        """
        self._title, self._total, self._unit, self._note = title, total, "", ""
        self._done = 0
        # Time and count of the first update: a resumed run does not start at 0.
        self._started: tuple[float, int] | None = None
        self._began = self._printed = time.monotonic()
        self._line = ""
        self._bar: RichProgress | None = None
        self._task = TaskID(0)
        self._console = Console(highlight=False)
        self._plain = enabled and not self._console.is_terminal
        if enabled and self._console.is_terminal:
            self._bar = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=BAR_WIDTH),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[figures]}", markup=False),
                console=self._console,
                refresh_per_second=REDRAWN_PER_SECOND,
            )
            self._task = self._bar.add_task(visible(title), total=total or None, figures="")
            self._bar.start()

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Shows that `step` steps of a training are done; `values` are the metrics of the last one."""
        figures = [f"{label} {values[key]:.3f}" for key, label in SHOWN.items() if key in values]
        if "rows_per_second" in values:
            figures.append(f"{values['rows_per_second']:.0f} rows/s")
        self._show(step, figures)

    def count(self, unit: str, done: int, total: int) -> None:
        """Shows that `done` of `total` parts are done; with another unit than before, counting begins anew."""
        if unit != self._unit:
            self._unit, self._started = unit, None
        self._total = total
        if self._bar is not None:
            self._bar.update(self._task, total=total)
        self._show(done, [])

    def note(self, text: str) -> None:
        """Shows what is being done inside of the part that is under way."""
        self._note = text
        self._show(self._done, [])

    def open_with(self, line: str) -> None:
        """Prints a line, unless there is a bar."""
        if self._plain:
            self._console.print(Text(visible(line)), soft_wrap=True)

    def close(self, *, last_line: bool) -> None:
        """Ends the bar. `last_line`: whether the last state is printed without a terminal too."""
        if self._bar is not None:
            self._bar.stop()
        elif self._plain and self._line and last_line:
            self._print(time.monotonic())

    def _show(self, done: int, figures: list[str]) -> None:
        if self._bar is None and not self._plain:
            return
        now = time.monotonic()
        if self._started is None:
            self._started = (now, done)
        self._done = done
        if self._unit:
            figures = [self._unit, *figures]
        if self._note:
            figures = [*figures, self._note]
        seconds = self._seconds_left(now)
        left = [] if seconds is None else [f"{duration(seconds)} left"]
        self._line = f"{visible(self._title)} {done}/{self._total}  {visible('  '.join([*figures, *left]))}"
        if self._bar is not None:
            # What does not fit is cut off at its end; by itself the table would cut the count.
            text = Text(visible("  ".join([*left, *figures])))
            text.truncate(max(self._console.width - len(self._title) - BAR_WIDTH - OTHER_WIDTH, 8), overflow="ellipsis")
            self._bar.update(self._task, completed=done, figures=text.plain)
        elif self._plain:
            wait = min(max(FIRST_WAIT, WAIT_SHARE * (now - self._began)), LONGEST_WAIT)
            if now - self._printed >= wait:
                self._print(now)

    def _seconds_left(self, now: float) -> float | None:
        """Returns the time that the other parts take if they are as fast as those so far.

        None before there is one, and after the last.
        """
        if self._started is None or not self._started[1] < self._done < self._total:
            return None
        began, first = self._started
        return (self._total - self._done) * (now - began) / (self._done - first)

    def _print(self, now: float) -> None:
        self._console.print(Text(self._line), soft_wrap=True)
        self._printed, self._line = now, ""


@contextmanager
def progress(title: str, total: int, *, enabled: bool = True) -> Iterator[Progress]:
    """Opens the Progress of a training: `with progress("unlearning", 60) as bar: bar.update(1, {"loss": 2.3})`."""
    bar = Progress(title, total, enabled)
    try:
        yield bar
    finally:
        bar.close(last_line=True)


@contextmanager
def counting(title: str, opening: str, *, enabled: bool = True) -> Iterator[Progress]:
    """Opens the Progress of something that is counted.

    Args:
        opening: the line that is printed as it begins where there is no terminal.
    """
    bar = Progress(title, 0, enabled)
    bar.open_with(opening)
    try:
        yield bar
    finally:
        bar.close(last_line=False)
