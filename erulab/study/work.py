"""Runs of a study in this process: one that learns for ten seconds cannot wait as long for its imports."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from erulab import config as configuration
from erulab import environment, jobs, worker
from erulab.errors import ConfigError, Interrupted
from erulab.jobs import Job
from erulab.rundir import InUse, RunDir

WAIT = 2.0  # seconds until a run that another process has is looked at again


def plan(overrides: Sequence[str], part: str = "") -> Job:
    """The job of a command line.

    Args:
        part: of the study, in the folder's name: a trial may differ from a reported run in its stages only.
    Raises:
        ConfigError: as `configuration.compose`, and where it wants several processes: a study starts none.
    """
    job = jobs.plan(configuration.compose(overrides))
    if job.config.engine.world > 1:
        raise ConfigError("a study runs each job in one process: type engine=local in its `common`")
    return replace(job, rundir=RunDir(f"{job.rundir.path}-{part}")) if part else job


def run(wanted: Sequence[Job]) -> Iterator[Job]:
    """Runs what is not finished, and gives each job as it is; several processes of one study share the work.

    Raises:
        Interrupted: stopped by a signal.
    """
    left = list(wanted)
    while left:
        waiting = []
        for job in left:
            try:
                if not _over(job):
                    _run(job)
            except InUse:
                waiting.append(job)
            else:
                yield job
        left = waiting
        if left:
            time.sleep(WAIT)


def scores(job: Job) -> dict[str, dict[str, Any]] | None:
    """scores.json of a run that ended well."""
    return job.rundir.read_json(job.rundir.scores_json) if jobs.finished(job) else None


def _over(job: Job) -> bool:
    """Whether the run ended, well or for a reason that it will have again (its loss is no number)."""
    ended = job.rundir.read_json(job.rundir.exit_json) if job.rundir.exit_json.is_file() else {"code": 75}
    return jobs.finished(job) or ended["code"] == 5


def _run(job: Job) -> None:
    rundir = job.rundir
    rundir.make()
    with rundir.locked():
        if _over(job):  # by another process, before the lock was had
            return
        rundir.clear()
        configuration.save(job.config, rundir.run_yaml)
        rundir.write_json(rundir.env_json, environment.describe(job.gpus))
        with rundir.rank_log(0).open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            code = worker.main([str(rundir.path)])
    if code == Interrupted.code:
        raise Interrupted("stopped; type the same command to go on")
