"""A sweep: every job is checked before the first starts, the outcome of each is kept, all are compared at the end.

Here jobs run one by one; pool.py runs many at once, and launch/hydra_plugins/ submits them to Slurm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Quote, QuotedString

from erulab.config.compose import config_to_dict, resolve_composed
from erulab.config.shown_settings import settings_lines
from erulab.errors import ConfigError, ErulabError
from erulab.faults import machine_faults_named
from erulab.launching import machine
from erulab.launching.folder_key import short_hash
from erulab.launching.job import Job, is_finished, plan_job, run_job
from erulab.launching.machine import GPU
from erulab.launching.prepared import PreparedWorkers, prepared_workers
from erulab.options import NOT_IN_PRODUCT, NOT_IN_SCORES
from erulab.redaction import redacted_text
from erulab.rundir import RunDir, make_private
from erulab.tracking.checks import check_tracked_sweep
from erulab.tracking.record import upload_line_of_sweep

if TYPE_CHECKING:
    from omegaconf import DictConfig

Compose = Callable[[list[str]], "DictConfig"]


@dataclass
class Task:
    """One run of a sweep and its outcome. Jobs that amount to the same run share one task."""

    number: int  # from 1, in the order of the jobs
    overrides: list[str]  # of the first of its jobs
    job: Job
    code: int | None = None  # None: has not run
    seconds: float | None = None
    before: bool = False  # whether it was finished before the sweep started
    gpus: str = ""  # CUDA_VISIBLE_DEVICES, if a launcher chose it

    @property
    def command(self) -> list[str]:
        """The command that runs the task in its own process, in the folder and wandb group that the sweep chose."""
        group = self.job.config.tracker.group
        own = {"hydra.mode": "RUN", "hydra.run.dir": self.folder} | ({} if group is None else {"tracker.group": group})
        quoted = [f"{key}={QuotedString(value, Quote.single).with_quotes()}" for key, value in own.items()]
        return [sys.executable, "-m", "erulab.run", *self.overrides, *quoted]

    @property
    def folder(self) -> str:
        return str(self.job.rundir.path)

    @property
    def state(self) -> str:
        """The outcome as the closing table words it."""
        if self.code is None:
            return "not run"
        if self.before:
            return "finished before"
        return {0: "done", 75: "stopped"}.get(self.code, "failed")


class Sweep:
    """A sweep's tasks, its folder with sweep.json, and its comparison."""

    def __init__(
        self, typed: Sequence[Sequence[str]], compose: Compose, named: str | None, gpus: list[GPU] | None = None
    ) -> None:
        """Composes and checks every job; starts none.

        Args:
            typed: the overrides of each job.
            compose: returns the composition of a job's overrides, with Hydra's node.
            named: the sweep folder, if the user names one; None: `<output>/sweeps/<key of its jobs>`.
            gpus: the GPUs that each job will have; None: all that this process may use.
        Raises:
            ErulabError: a job cannot run; the message names it and says why.
        """
        if not typed:
            raise ConfigError(
                "the sweep has no jobs: a key has no values, as in seed=range(0,0); type values, such as seed=0,1"
            )
        plans = _give_own_folders([_plan_task(number, list(one), compose, gpus) for number, one in enumerate(typed)])
        tasks: dict[str, Task] = {}
        for overrides, job in zip(typed, plans, strict=True):
            # Jobs that amount to the same run (two spellings of a value) run once.
            tasks.setdefault(str(job.rundir.path), Task(len(tasks) + 1, list(overrides), job))
        self.tasks = list(tasks.values())
        check_tracked_sweep([task.job.config for task in self.tasks])
        self.key = short_hash(sorted(task.job.rundir.path.name for task in self.tasks))
        self.folder = Path(named or Path(self.tasks[0].job.config.output) / "sweeps" / self.key)
        self._jobs = [(list(one), tasks[str(job.rundir.path)]) for one, job in zip(typed, plans, strict=True)]
        self._rundir = RunDir(self.folder)
        for task in self.tasks:
            task.job = _with_tracker_group(task.job, self.key)

    @property
    def codes(self) -> list[int | None]:
        """Each job's exit code; None for one that a signal kept from starting."""
        return [task.code for _, task in self._jobs]

    @property
    def job_folders(self) -> list[str]:
        """Each job's run folder; jobs that amount to the same run share one."""
        return [task.folder for _, task in self._jobs]

    def start(self) -> None:
        """Makes the sweep folder and a sweep.json without outcomes; prints what all jobs have in common."""
        self._rundir.make()
        if any(task.job.config.artifacts.private for task in self.tasks):
            make_private(self.folder)
        self.write()
        print(*settings_lines([task.job.config for task in self.tasks], self.folder), sep="\n", flush=True)

    def skip_if_finished(self, task: Task) -> bool:
        """Marks a task that was finished before, and prints that; returns whether it was."""
        if not is_finished(task.job):
            return False
        task.code, task.before = 0, True
        self.write()
        print(f"finished before: {task.folder}", flush=True)
        return True

    def write(self) -> None:
        """Writes sweep.json with the outcomes so far."""
        rows = [
            {"overrides": one, "folder": task.folder, "code": task.code, "seconds": task.seconds, "gpus": task.gpus}
            for one, task in self._jobs
        ]
        command = redacted_text(machine.typed_command())
        self._rundir.write_json(self.folder / "sweep.json", {"key": self.key, "command": command, "jobs": rows})

    def announce(self, task: Task, what: str = "") -> None:
        """Prints one line: which job, what happens to it, and the overrides that distinguish it."""
        print(f"job {task.number} of {len(self.tasks)}{what}: {self.own_overrides(task)}", flush=True)

    def log_file(self, task: Task) -> Path:
        """Returns the file for the output of a job that runs beside others."""
        return self.folder / f"job{task.number}.log"

    def own_overrides(self, task: Task) -> str:
        """Returns the overrides of a task that not all tasks have, without secrets; all of a task that is alone."""
        common = set.intersection(*[set(task.overrides) for task in self.tasks]) if len(self.tasks) > 1 else set()
        return redacted_text(" ".join(one for one in task.overrides if one not in common))

    def show(self) -> None:
        """Prints the outcome of each task, with the overrides that distinguish it from the others."""
        # Loads rich, so only when there is something to show.
        from erulab.reporting.console import show_jobs_table

        rows = []
        for task in self.tasks:
            own = self.own_overrides(task)
            code, seconds = ("" if value is None else f"{value:.0f}" for value in (task.code, task.seconds))
            rows.append([str(task.number), own, task.state, code, seconds, task.gpus, task.folder])
        show_jobs_table(rows)

    def compare(self) -> None:
        """Compares the jobs that were scored: prints the table, and writes report.md and report.html."""
        # Loads jinja and matplotlib, so only when there is something to show.
        from erulab.reporting import compare

        scored: list[Any] = [task.job.rundir.path for task in self.tasks if task.job.rundir.scores_json.is_file()]
        if not scored:
            return
        print(compare(scored, sweep=self.folder), flush=True)
        self._rundir.write_text(self._rundir.report_md, compare(scored, "md", sweep=self.folder))
        self._rundir.write_text(self._rundir.report_html, compare(scored, "html", sweep=self.folder, at=self.folder))
        print(f"sweep folder: {self.folder}\nreport: {self._rundir.report_html}", flush=True)
        line = upload_line_of_sweep(self.folder, [task.job.rundir for task in self.tasks])
        if line is not None:
            print(f"to upload all: {line}", flush=True)


def run_one_by_one(sweep: Sweep, prepared: PreparedWorkers | None = None) -> None:
    """Runs a sweep's tasks one by one, in workers that share their imports where they can.

    Goes on after a failure, stops at a signal.

    Args:
        prepared: workers that share their imports with those of other sweeps; None: only this sweep's share theirs.
    """
    sweep.start()
    trackers = {task.job.config.tracker.name.value for task in sweep.tasks}
    with contextlib.nullcontext(prepared) if prepared is not None else prepared_workers(trackers) as shared:
        for task in sweep.tasks:
            sweep.announce(task)
            if sweep.skip_if_finished(task):
                continue
            started = time.monotonic()
            try:
                with machine_faults_named(task.job.rundir.path):
                    ended = run_job(task.job, shared.start)
            except ErulabError as error:  # its folder is in use, or the disk is full: the others can go on
                print(redacted_text(str(error)), flush=True)
                task.code, stopped = error.code, False
            else:
                task.code, stopped = ended.code, ended.stopped
            task.seconds = time.monotonic() - started
            sweep.write()
            if stopped:
                break
    sweep.compare()


def _plan_task(number: int, typed: list[str], compose: Compose, gpus: list[GPU] | None) -> Job:
    try:
        return plan_job(resolve_composed(compose(typed), typed), gpus=gpus)
    except ErulabError as error:
        raise type(error)(f"job {number} ({redacted_text(' '.join(typed))}): {error}") from None


def _give_own_folders(plans: list[Job]) -> list[Job]:
    """Returns the jobs with a folder of their own for each.

    Jobs that differ only in what the folder's key leaves out share a folder when they run alone, but not in a sweep.
    The folder then carries a hash of the differing values only, so that a sweep finds its folders again on another
    number of GPUs.
    """
    additions = [_values_outside_key(job) for job in plans]
    together: dict[str, list[dict[str, Any]]] = {}
    for job, own in zip(plans, additions, strict=True):
        together.setdefault(str(job.rundir.path), []).append(own)
    apart = []
    for job, own in zip(plans, additions, strict=True):
        others = together[str(job.rundir.path)]
        differing = {part: value for part, value in own.items() if any(other[part] != value for other in others)}
        path = f"{job.rundir.path}-{short_hash(differing)}" if differing else job.rundir.path
        apart.append(dataclasses.replace(job, rundir=RunDir(path)))
    return apart


def _values_outside_key(job: Job) -> dict[str, Any]:
    """Returns the values that a run's files or costs depend on, but its folder's key does not."""
    values = config_to_dict(job.config)
    parts: dict[str, Any] = {part: values[part] for part in ("attack", "stages", "report", "artifacts")}
    # The rendezvous differs each time, and no file depends on how long a rank may be silent.
    parts["engine"] = {key: value for key, value in values["engine"].items() if key not in ("rendezvous", "timeout")}
    for part in ("trainer", "target"):
        parts[part] = {key: values[part][key] for key in NOT_IN_PRODUCT if key in values[part]}
    parts["evaluation"] = {key: values["evaluation"][key] for key in NOT_IN_SCORES}
    return parts


def _with_tracker_group(job: Job, key: str) -> Job:
    tracker = job.config.tracker
    if tracker.group is not None or os.environ.get("WANDB_RUN_GROUP"):
        return job
    config = dataclasses.replace(job.config, tracker=dataclasses.replace(tracker, group=key))
    return dataclasses.replace(job, config=config)
