"""Many runs: every job checked before the first starts, what became of each, one comparison at the end.

How jobs are run is the launchers' part: one after another here, many at once in pool.py.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Quote, QuotedString

from erulab.config.compose import config_to_dict, resolve_composed
from erulab.errors import ErulabError
from erulab.launching import machine
from erulab.launching.folder_key import short_hash
from erulab.launching.job import Job, is_finished, plan_job, run_job
from erulab.launching.machine import GPU
from erulab.options import NOT_IN_PRODUCT, NOT_IN_SCORES
from erulab.redaction import redacted_text
from erulab.rundir import RunDir

if TYPE_CHECKING:
    from omegaconf import DictConfig

Compose = Callable[[list[str]], "DictConfig"]


@dataclass
class Task:
    """One run of a sweep and what has become of it. Jobs that come down to one run are one task."""

    number: int  # from 1, in the order of the jobs
    overrides: list[str]  # of the first of its jobs
    job: Job
    code: int | None = None  # None: not run, or not yet
    seconds: float | None = None
    before: bool = False  # it was finished before
    gpus: str = ""  # CUDA_VISIBLE_DEVICES, where a launcher chose

    @property
    def command(self) -> list[str]:
        """Runs it in a process of its own, in the folder and the group that the sweep gave it."""
        own = {"hydra.mode": "RUN", "hydra.run.dir": self.folder, "tracker.group": str(self.job.config.tracker.group)}
        quoted = [f"{key}={QuotedString(value, Quote.single).with_quotes()}" for key, value in own.items()]
        return [sys.executable, "-m", "erulab.run", *self.overrides, *quoted]

    @property
    def title(self) -> str:
        return redacted_text(" ".join(self.overrides))

    @property
    def folder(self) -> str:
        return str(self.job.rundir.path)

    @property
    def state(self) -> str:
        """In a word, as the closing table says it."""
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
        """Checks every job; nothing has started when one cannot run.

        Args:
            typed: each job's overrides; compose: gives their composition, with Hydra's node.
            named: the sweep folder, where the user names one; else `<output>/sweeps/<key of its jobs>`.
            gpus: those each job will have; None: all that this process may use.
        Raises:
            ErulabError: a job cannot run: which, and why.
        """
        plans = _apart([_plan(number, list(one), compose, gpus) for number, one in enumerate(typed)])
        tasks: dict[str, Task] = {}
        for overrides, job in zip(typed, plans, strict=True):
            # Jobs that come down to one run (two spellings of a value) run once.
            tasks.setdefault(str(job.rundir.path), Task(len(tasks) + 1, list(overrides), job))
        self.tasks = list(tasks.values())
        self.key = short_hash(sorted(task.job.rundir.path.name for task in self.tasks))
        self.folder = Path(named or Path(self.tasks[0].job.config.output) / "sweeps" / self.key)
        self._jobs = [(list(one), tasks[str(job.rundir.path)]) for one, job in zip(typed, plans, strict=True)]
        self._rundir = RunDir(self.folder)
        for task in self.tasks:
            task.job = _in_group(task.job, self.key)

    @property
    def codes(self) -> list[int | None]:
        """Each job's exit code, None for one that a signal kept from starting."""
        return [task.code for _, task in self._jobs]

    def start(self) -> None:
        """Makes the folder, with a sweep.json in which nothing has happened yet."""
        self._rundir.make()
        self.write()

    def skips(self, task: Task) -> bool:
        """Whether the task was finished before; says and marks that."""
        if not is_finished(task.job):
            return False
        task.code, task.before = 0, True
        self.write()
        print(f"finished before: {task.folder}", flush=True)
        return True

    def write(self) -> None:
        """sweep.json, as things stand."""
        rows = [
            {"overrides": one, "folder": task.folder, "code": task.code, "seconds": task.seconds, "gpus": task.gpus}
            for one, task in self._jobs
        ]
        command = redacted_text(machine.command())
        self._rundir.write_json(self.folder / "sweep.json", {"key": self.key, "command": command, "jobs": rows})

    def announce(self, task: Task, what: str = "") -> None:
        """One line on the console: which job, and what happens with it."""
        print(f"job {task.number} of {len(self.tasks)}{what}: {task.title}", flush=True)

    def show(self) -> None:
        """The table of what became of each task, with the overrides that tell it from the others."""
        # Rich is loaded only where there is something to show.
        from erulab.reporting.console import show_jobs_table

        common = set.intersection(*[set(task.overrides) for task in self.tasks]) if len(self.tasks) > 1 else set()
        rows = []
        for task in self.tasks:
            own = redacted_text(" ".join(one for one in task.overrides if one not in common))
            code, seconds = ("" if value is None else f"{value:.0f}" for value in (task.code, task.seconds))
            rows.append([str(task.number), own, task.state, code, seconds, task.gpus, task.folder])
        show_jobs_table(rows)

    def compare(self) -> None:
        """The table over the jobs that were scored, printed and as report.md and report.html."""
        # Jinja and matplotlib are loaded only where there is something to show.
        from erulab.reporting import compare

        scored: list[Any] = [task.job.rundir.path for task in self.tasks if task.job.rundir.scores_json.is_file()]
        if not scored:
            return
        print(compare(scored), flush=True)
        self._rundir.write_text(self._rundir.report_md, compare(scored, "md"))
        self._rundir.write_text(self._rundir.report_html, compare(scored, "html"))
        print(f"sweep folder: {self.folder}", flush=True)


def one_after_another(sweep: Sweep) -> None:
    """Runs a sweep's tasks in this process's workers; goes on after a failure, stops at a signal."""
    sweep.start()
    for task in sweep.tasks:
        sweep.announce(task)
        if sweep.skips(task):
            continue
        started = time.monotonic()
        try:
            ended = run_job(task.job)
        except ErulabError as error:  # its folder is in use, the disk is full: the others can go on
            print(error, flush=True)
            task.code, stopped = error.code, False
        else:
            task.code, stopped = ended.code, ended.stopped
        task.seconds = time.monotonic() - started
        sweep.write()
        if stopped:
            break
    sweep.compare()


def _plan(number: int, typed: list[str], compose: Compose, gpus: list[GPU] | None) -> Job:
    try:
        return plan_job(resolve_composed(compose(typed), typed), gpus=gpus)
    except ErulabError as error:
        raise type(error)(f"job {number} ({redacted_text(' '.join(typed))}): {error}") from None


def _apart(plans: list[Job]) -> list[Job]:
    """Jobs that differ only in what the folder's key leaves out share a folder when run alone, but not in a sweep.

    Only what sets such jobs apart counts, so that a sweep finds its folders again on another number of GPUs.
    """
    additions = [_additions(job) for job in plans]
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


def _additions(job: Job) -> dict[str, Any]:
    """What a run's files or costs depend on, and its folder's key does not."""
    values = config_to_dict(job.config)
    parts: dict[str, Any] = {part: values[part] for part in ("attack", "stages", "artifacts")}
    # Where hosts meet is another place each time.
    parts["engine"] = {key: value for key, value in values["engine"].items() if key != "rendezvous"}
    for part in ("trainer", "target"):
        parts[part] = {key: values[part][key] for key in NOT_IN_PRODUCT if key in values[part]}
    parts["evaluation"] = {key: values["evaluation"][key] for key in NOT_IN_SCORES}
    return parts


def _in_group(job: Job, key: str) -> Job:
    tracker = job.config.tracker
    if tracker.group is not None:
        return job
    config = dataclasses.replace(job.config, tracker=dataclasses.replace(tracker, group=key))
    return dataclasses.replace(job, config=config)
