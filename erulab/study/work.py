"""Runs of a study in this process: one that learns for ten seconds cannot wait as long for its imports."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from erulab import worker
from erulab.config.compose import compose_config, save_config
from erulab.errors import ConfigError, ErulabError, NumericFault
from erulab.launching import machine
from erulab.launching.job import Job, is_finished, plan_job
from erulab.rundir import InUse, RunDir
from erulab.training.stopping import SIGNALS

WAIT = 2.0  # seconds until a run that another process has is looked at again


def plan(overrides: Sequence[str], part: str = "") -> Job:
    """The job of a command line.

    Args:
        part: of the study, in the folder's name: a trial may differ from a reported run in its stages only.
    Raises:
        ConfigError: as `configuration.compose`, and where it wants several processes: a study starts none.
    """
    job = plan_job(compose_config(overrides))
    if job.config.engine.world > 1:
        raise ConfigError("a study runs each job in one process: type engine=local in its `common`")
    return replace(job, rundir=RunDir(f"{job.rundir.path}-{part}")) if part else job


def run(wanted: Sequence[Job]) -> Iterator[Job]:
    """Runs what is not finished, and gives each job as it is; several processes of one study share the work.

    Raises:
        ErulabError: a run was stopped, or failed for a reason that is not its settings' own: to count it as a bad
            trial would let a full disk choose.
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
    return job.rundir.read_json(job.rundir.scores_json) if is_finished(job) else None


def _over(job: Job) -> bool:
    """Whether the run ended, well or for a reason that it will have again (its loss is no number)."""
    ended = job.rundir.read_json(job.rundir.exit_json) if job.rundir.exit_json.is_file() else {"code": 75}
    return is_finished(job) or ended["code"] == NumericFault.code


def _run(job: Job) -> None:
    rundir = job.rundir
    rundir.make()
    with rundir.locked():
        if _over(job):  # by another process, before the lock was had
            return
        rundir.clear()
        save_config(job.config, rundir.run_yaml)
        rundir.write_json(rundir.env_json, machine.describe(job.gpus))
        with contextlib.ExitStack() as around:
            around.enter_context(_as_it_was())
            log = around.enter_context(rundir.rank_log(0).open("a"))
            around.enter_context(contextlib.redirect_stdout(log))
            around.enter_context(contextlib.redirect_stderr(log))
            worker.main([str(rundir.path)])
    ended = rundir.read_json(rundir.exit_json)
    if ended["code"] not in (0, NumericFault.code):
        fault = ErulabError(f"{rundir.path}: {ended['message']}; type the same command to go on")
        fault.code = ended["code"]
        raise fault


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """A worker takes signals and the log for itself, and leaves them to the end of its process."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        logging.basicConfig(level=logging.WARNING, force=True)
