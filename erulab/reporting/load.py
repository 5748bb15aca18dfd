"""Reads run folders back. Nothing is made up: a missing file is empty, and `missing` names unfinished stages.

A damaged file is empty too, and `damaged` says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from erulab.errors import DataError
from erulab.redaction import redacted
from erulab.reporting import shapes
from erulab.reporting.read_results import ResultFiles, read_json
from erulab.rundir import RunDir

MODELS = ("target", "unlearned", "oracle")
NO_RESULT = ("data", "report")  # entries of stages.json that say nothing of a model


@dataclass(frozen=True)
class RunResult:
    """The contents of one run folder. A missing or damaged file is an empty dict or list."""

    path: Path
    config: dict[str, Any]
    scores: dict[str, dict[str, Any]]  # model -> flat metric names -> value
    intervals: dict[str, dict[str, Any]]  # model -> flat metric names -> [low, high], 95 %
    uds: dict[str, Any]  # uds.json: the depth score by row and by layer
    attacks: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    alternatives: list[dict[str, Any]]  # answers that the target gave in place of forgotten ones (altpo)
    stages: dict[str, dict[str, Any]]
    env: dict[str, Any]
    metrics: list[dict[str, Any]]  # unlearning steps, in order
    ended: dict[str, Any]  # exit.json: code, message, rank
    damaged: tuple[str, ...] = ()  # a line for each file that cannot be read: where, and what to type

    @property
    def name(self) -> str:
        return self.path.name

    def choice(self, group: str) -> str:
        """Returns the name chosen for a config group (`method`, `reward`, ...), or an empty text."""
        options = self.config.get(group)
        return str(options["name"]) if isinstance(options, dict) and "name" in options else ""

    @property
    def checkpoint(self) -> str:
        """The checkpoint given in place of an unlearned model; empty if the method of the config made the model."""
        return str((self.config.get("model") or {}).get("unlearned") or "")

    @property
    def made_by(self) -> str:
        """The method that made the unlearned model, or `given`."""
        return "given" if self.checkpoint else self.choice("method")

    @property
    def has_results(self) -> bool:
        """Whether any stage has made something to report."""
        finished = [name for name, entry in self.stages.items() if entry.get("done") and name not in NO_RESULT]
        return bool(self.scores or self.attacks or finished)

    @property
    def missing(self) -> tuple[str, ...]:
        """Stages that the config requests and that have not finished."""
        wanted = [str(stage) for stage in self.config.get("stages", [])]
        if not self.config.get("attack"):
            wanted = [stage for stage in wanted if stage != "attack"]
        # These methods train nothing: their unlearned model is the oracle or the target.
        if self.choice("method") in ("retrain", "none"):
            wanted = [stage for stage in wanted if stage != "unlearn"]
        model = self.config.get("model") or {}
        given = {
            stage
            for stage, key in (("target", "target"), ("oracle", "oracle"), ("unlearn", "unlearned"))
            if model.get(key)
        }
        return tuple(s for s in wanted if s not in given and not self.stages.get(s, {}).get("done"))


def load_run(folder: Path) -> RunResult:
    """Reads one run folder; what is damaged in it is left out and named in `damaged`.

    Raises:
        DataError: the folder is no run.
    """
    rundir, files = _opened(folder)
    run = _read_figures(rundir, files)
    return replace(
        run,
        config=redacted(run.config),
        uds=files.json(rundir.uds_json, shapes.depth, {}),
        samples=files.json(rundir.samples_json, shapes.samples, []),
        alternatives=files.json(rundir.alternatives_json, shapes.alternatives, []),
        metrics=files.metrics(rundir.metrics_jsonl),
        damaged=tuple(files.damaged),
    )


def load_figures(folder: Path) -> RunResult:
    """Reads what a list of many runs shows: config (secrets are still in it), figures, attacks, stages and the end.

    Samples, steps and curves are left empty, because reading them takes most of the time.

    Raises:
        DataError: the folder is no run.
    """
    rundir, files = _opened(folder)
    return replace(_read_figures(rundir, files), damaged=tuple(files.damaged))


def _opened(folder: Path) -> tuple[RunDir, ResultFiles]:
    rundir = RunDir(folder)
    if not rundir.run_yaml.is_file():
        raise DataError(f"{folder} is no run folder: it has no run.yaml; name a folder that erulab.run made")
    return rundir, ResultFiles()


def _read_figures(rundir: RunDir, files: ResultFiles) -> RunResult:
    return RunResult(
        path=rundir.path,
        config=files.config(rundir.run_yaml),
        scores=files.json(rundir.scores_json, shapes.scores, {}),
        intervals=files.json(rundir.intervals_json, shapes.intervals, {}),
        uds={},
        attacks=files.json(rundir.attacks_json, shapes.attack_rows, []),
        samples=[],
        alternatives=[],
        stages=files.json(rundir.stages_json, shapes.stages, {}),
        env=redacted(files.json(rundir.env_json, shapes.env, {})),
        metrics=[],
        ended=files.json(rundir.exit_json, shapes.ended, {}),
    )


def load_runs(folders: Sequence[Path], read: Callable[[Path], RunResult] = load_run) -> list[RunResult]:
    """Reads the runs of several folders, in the order given; a run that is named twice comes once.

    Args:
        folders: run folders, sweep folders, or folders that stand for every run below them, in order of name.
        read: `load_run`, or `load_figures` where no more is shown.
    Raises:
        DataError: a folder holds no run or sweep.
        IntegrityFault: a sweep.json is damaged.
    """
    runs: dict[Path, RunResult] = {}
    for folder in folders:
        for job in run_folders(Path(folder)):
            runs.setdefault(job.resolve(), read(job))
    if not runs:
        raise DataError(
            f"no job of {', '.join(str(folder) for folder in folders)} has started: there is no run to show"
        )
    return list(runs.values())


def run_folders(folder: Path) -> list[Path]:
    """Returns the run folders that a run folder, a folder of a sweep or search, or a parent folder stands for.

    Raises:
        DataError: neither a run, a sweep nor a finished search is there.
        IntegrityFault: sweep.json or search.json is damaged.
    """
    sweep, search = folder / "sweep.json", folder / "search.json"
    if sweep.is_file():
        # A job that never started has no folder; the others are compared without it.
        named = [Path(job["folder"]) for job in read_json(sweep, shapes.sweep)["jobs"]]
    elif search.is_file():
        trials = read_json(search, shapes.search)["trials"]  # two that drew the same settings share a run
        named = list(dict.fromkeys(Path(trial["folder"]) for trial in trials if "folder" in trial))
    else:
        runs = list(_runs_below(folder))
        if not runs:
            raise DataError(f"{folder} is no run or sweep folder: neither run.yaml nor sweep.json is in it or below it")
        return runs
    return [job for job in (job_folder(path, folder) for path in named) if RunDir(job).run_yaml.is_file()]


def _runs_below(folder: Path) -> Iterator[Path]:
    """Yields the run folders at and below a folder; hidden folders (caches) are skipped."""
    for path, folders, files in os.walk(folder):
        if RunDir(path).run_yaml.name in files:
            folders.clear()
            yield Path(path)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def job_folder(job: Path, sweep: Path) -> Path:
    """Returns the folder of a sweep's or search's run, also if the output folder was moved since."""
    moved = sweep.resolve().parent.parent / job.parent.name / job.name
    return moved if not RunDir(job).run_yaml.is_file() else job
