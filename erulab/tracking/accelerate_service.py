"""Sends a run to TensorBoard, MLflow or Trackio, through the trackers of Hugging Face's accelerate."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from erulab.options import RunConfig, TrackerName
from erulab.reporting.settings import flat_settings, setting_text
from erulab.rundir import RunDir
from erulab.tracking import naming
from erulab.tracking.config_sent import sent_config
from erulab.tracking.figures import Results, only_numbers

PROJECT = "erulab"
# By these accelerate tells that it is one of several ranks, and would then set threads and join their process group.
RANKS = ("LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


class AccelerateService:
    """One run of TensorBoard, MLflow or Trackio."""

    def __init__(self, rundir: RunDir, config: RunConfig) -> None:
        self._rundir, self._config = rundir, config
        self._tracker: Any = None
        self._last_step = 0

    def will_be(self, known: str | None) -> bool:
        return True

    def open(self, known: str | None) -> str:
        with _no_other_ranks():
            self._tracker = self._new_tracker(known)
            # Rank 0 alone holds a tracker; asking the others would need a process group.
            self._tracker.main_process_only = False
            self._tracker.start()
        if known is None:
            flat = flat_settings(sent_config(self._rundir, self._config))
            self._tracker.store_init_configuration({key: _hyperparameter(value) for key, value in flat.items()})
        return self._identity()

    def log(self, values: Mapping[str, Any]) -> None:
        numbers = only_numbers(values)
        stage = next((name.removesuffix("step") for name in numbers if name.endswith("/step")), "")
        step = int(numbers.pop(f"{stage}step", self._last_step))
        if not stage:
            self._last_step = step
        self._tracker.log(numbers, step=step)

    def summarise(self, values: Mapping[str, Any]) -> None:
        self._tracker.log(only_numbers(values), step=self._last_step)

    def send(self, results: Results) -> None:
        if self._config.tracker.name is TrackerName.tensorboard and results.words:
            self._tracker.log({"verdict": results.words}, step=self._last_step)
        if self._config.tracker.name is TrackerName.mlflow:
            self._send_to_mlflow(results)

    def close(self, *, failed: bool) -> None:
        self._tracker.finish()

    def _new_tracker(self, known: str | None) -> Any:
        from accelerate import PartialState
        from accelerate.tracking import MLflowTracker, TensorBoardTracker, TrackioTracker

        PartialState(cpu=True)  # accelerate's own log needs it
        tracker, name = self._config.tracker, naming.run_name(self._rundir, self._config)
        if tracker.name is TrackerName.tensorboard:
            return TensorBoardTracker(self._rundir.tensorboard.name, str(self._rundir.path))
        if tracker.name is TrackerName.mlflow:
            tags = {tag: "true" for tag in naming.tags(self._config)}
            tags |= {} if tracker.group is None else {"group": tracker.group}
            return MLflowTracker(tracker.project or PROJECT, run_id=known, run_name=name, tags=tags)
        return TrackioTracker(tracker.project or PROJECT, name=known or name, group=tracker.group, resume="allow")

    def _identity(self) -> str:
        """Returns the id by which the tracker finds the run again."""
        if self._config.tracker.name is TrackerName.mlflow:
            return str(self._tracker.tracker.info.run_id)
        return naming.run_name(self._rundir, self._config)

    def _send_to_mlflow(self, results: Results) -> None:
        import mlflow

        if results.words:
            mlflow.set_tag("mlflow.note.content", results.words)
        for file in (self._rundir.scores_json, self._rundir.attacks_json):
            if file.is_file():
                self._tracker.log_artifact(str(file))


def _hyperparameter(value: Any) -> Any:
    """Returns a setting as a tracker takes it: a number, a truth value or a text."""
    return value if isinstance(value, int | float | str) else setting_text(value)


@contextmanager
def _no_other_ranks() -> Iterator[None]:
    """Hides that this process is one of several ranks."""
    hidden = {name: os.environ.pop(name) for name in RANKS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
