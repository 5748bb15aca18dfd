"""Trials of a search as the jobs of a sweep: run by the same launchers, without a table of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from erulab.launching.machine import GPU
from erulab.launching.sweep import Compose, Sweep, Task
from erulab.redaction import redacted_text


class TrialSweep(Sweep):
    """A few trials that are started together; the search keeps what came out, and compares at its end."""

    def __init__(
        self,
        typed: Sequence[Sequence[str]],
        titles: Sequence[str],
        compose: Compose,
        folder: str,
        gpus: list[GPU] | None,
    ) -> None:
        """
        Args:
            titles: what is printed about each trial.
            folder: of the search, for the logs of jobs that run at once.
            typed, compose, gpus: as for `Sweep`.
        """
        super().__init__(typed, compose, folder, gpus)
        self._titles = {" ".join(one): title for one, title in zip(typed, titles, strict=True)}

    @property
    def outcomes(self) -> list[tuple[int | None, Path]]:
        """Each trial's exit code, None if a signal kept it from starting, and its run folder."""
        return [(task.code, task.job.rundir.path) for _, task in self._jobs]

    def start(self) -> None:
        """Prints nothing: the search has shown what its trials have in common, and `announce` shows the rest."""

    def write(self) -> None:
        """Writes nothing: the search has a journal."""

    def announce(self, task: Task, what: str = "") -> None:
        """Prints which trial begins, with its settings."""
        print(f"{redacted_text(self._titles[' '.join(task.overrides)])}{what}", flush=True)

    def log_file(self, task: Task) -> Path:
        """Returns a file by the name of the run folder: trials of other batches and terminals have the same numbers."""
        return self.folder / f"{task.job.rundir.path.name}.log"

    def show(self) -> None:
        """Prints nothing: the search shows all trials at its end."""

    def compare(self) -> None:
        """Compares nothing, for the same reason."""
