"""Runs the jobs of a study one after another in this process, so that short runs do not wait for imports."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from erulab import worker
from erulab.command import STOP_SIGNALS
from erulab.config.compose import compose_config, save_config
from erulab.errors import ConfigError, ErulabError, NumericFault
from erulab.launching import machine
from erulab.launching.finished import record_finished
from erulab.launching.job import Job, is_finished, plan_job
from erulab.rundir import InUse, RunDir

WAIT = 2.0  # seconds between two tries to take over a run that another process works on


def plan_run(overrides: Sequence[str], part: str = "") -> Job:
    """Plans the job of a command line.

    Args:
        overrides: as on the command line.
        part: a suffix of the folder's name, because a trial may differ from a reported run in its stages only.
    Raises:
        ConfigError: the overrides do not compose, or request several processes, which a study does not start.
    """
    job = plan_job(compose_config(overrides))
    if job.config.engine.world > 1:
        raise ConfigError("a study runs each job in one process: type engine=local in its `common`")
    return replace(job, rundir=RunDir(f"{job.rundir.path}-{part}")) if part else job


def plan_scoring(job: Job, unlearned: Path) -> Job:
    """Plans the job of another model in place of `model.unlearned`; faster than composing its command line."""
    return plan_job(replace(job.config, model=replace(job.config.model, unlearned=str(unlearned))))


def run_jobs(wanted: Sequence[Job]) -> Iterator[Job]:
    """Runs the jobs that are not finished, and yields each job when it is. Several processes of a study share the work.

    Raises:
        ErulabError: a run was stopped, or failed for a reason other than its settings. It is not counted as a bad
            trial, because a full disk must not choose the best one.
    """
    left = list(wanted)
    while left:
        waiting = []
        for job in left:
            try:
                if not _has_ended(job):
                    _run_in_this_process(job)
            except InUse:
                waiting.append(job)
            else:
                yield job
        left = waiting
        if left:
            time.sleep(WAIT)


def read_scores(job: Job) -> dict[str, dict[str, Any]] | None:
    """Returns scores.json of a finished run; None if the run failed."""
    return job.rundir.read_json(job.rundir.scores_json) if is_finished(job) else None


def _has_ended(job: Job) -> bool:
    """Returns whether the run is finished, or failed in a way that it would fail again (its loss is not a number)."""
    ended = job.rundir.read_json(job.rundir.exit_json) if job.rundir.exit_json.is_file() else {"code": 75}
    return is_finished(job) or ended["code"] == NumericFault.code


def _run_in_this_process(job: Job) -> None:
    rundir = job.rundir
    rundir.make()
    with rundir.locked():
        if _has_ended(job):  # another process ran it before this one took the lock
            return
        rundir.clear()
        save_config(job.config, rundir.run_yaml)
        rundir.write_json(rundir.env_json, machine.describe(job.gpus))
        with contextlib.ExitStack() as around:
            around.enter_context(_restored_signals_and_log())
            log = around.enter_context(rundir.rank_log(0).open("a"))
            around.enter_context(contextlib.redirect_stdout(log))
            around.enter_context(contextlib.redirect_stderr(log))
            worker.main([str(rundir.path)])
        ended = rundir.read_json(rundir.exit_json)
        if ended["code"] == 0:
            record_finished(rundir, job.config, job.key)
    if ended["code"] not in (0, NumericFault.code):
        fault = ErulabError(f"{rundir.path}: {ended['message']}; type the same command to go on")
        fault.code = ended["code"]
        raise fault


@contextlib.contextmanager
def _restored_signals_and_log() -> Iterator[None]:
    """Restores signal handlers and logging after a run, which a worker sets for the rest of its process."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        logging.basicConfig(level=logging.WARNING, force=True)
