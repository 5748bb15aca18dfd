"""One run, from a typed config to finished workers: what `run.py` does once and a sweep for each of its jobs."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from erulab import config as configuration
from erulab import config_rules, dispatch, environment
from erulab.dispatch import Ended
from erulab.environment import GPU
from erulab.errors import ConfigError, ErulabError
from erulab.options import RunConfig
from erulab.rundir import RunDir

WORKER = "erulab.worker"


@dataclass(frozen=True)
class Job:
    """A run that has been checked as far as it can be before its workers start."""

    config: RunConfig
    rundir: RunDir
    gpus: list[GPU]


def plan(config: RunConfig, folder: str | None = None) -> Job:
    """Makes engine and run folder definite, and looks at files, packages and GPUs. Writes nothing but the
    rows of files, into the cache.

    Args:
        folder: the run folder, where the user names one; else `<output>/<dataset>/<method>-<key>`.
    Raises:
        ErulabError: one line, of the code that fits.
    """
    gpus = environment.gpus()
    config = dataclasses.replace(config, engine=dispatch.choose_engine(config.engine, len(gpus)))
    config_rules.check_batches(config, config.engine.processes or 1)
    configuration.validate(config)
    dispatch.check_machine(config, gpus)
    if folder is not None:
        return Job(config, RunDir(folder), gpus)
    name = f"{config.method.name}-{configuration.folder_key(config)}"
    return Job(config, RunDir(Path(config.output) / config.dataset.name / name), gpus)


def run(job: Job) -> Ended:
    """Writes run.yaml and env.json, runs the workers, and says how they ended where they could not.

    Raises:
        ErulabError: the folder cannot be used.
    """
    rundir = job.rundir
    rundir.make()
    with rundir.locked() as held:
        _check_same_run(job)
        configuration.save(job.config, rundir.run_yaml)
        rundir.write_json(rundir.env_json, environment.describe(job.gpus))
        ended = dispatch.run(rundir, job.config.engine.processes or 1, WORKER, gpus=len(job.gpus), held=held)
    _say(job, ended)
    return ended


def finished(job: Job) -> bool:
    """Whether the run folder already holds all that the job would make."""
    rundir = job.rundir
    # The code of a plugin may have changed, which the folder's key does not show; the caches know.
    if job.config.rerun or job.config.plugins or not rundir.exit_json.is_file() or not rundir.run_yaml.is_file():
        return False
    if rundir.read_json(rundir.exit_json)["code"] != 0:
        return False
    before: dict[str, Any] = yaml.safe_load(rundir.run_yaml.read_text(encoding="utf-8"))
    now = configuration.plain(job.config)
    # The folder's key holds the rest.
    return all(before.get(part) == now[part] for part in ("attack", "stages", "artifacts", "evaluation"))


def _check_same_run(job: Job) -> None:
    """A folder that the user names may hold another run, whose files would be mixed with this one's."""
    if not job.rundir.run_yaml.is_file():
        return
    try:
        before = configuration.folder_key(configuration.load(job.rundir.run_yaml))
    except ErulabError:
        before = "unreadable"
    if before != configuration.folder_key(job.config):
        raise ConfigError(
            f"{job.rundir.path} holds a run with other settings (see its run.yaml); name another folder with "
            "hydra.run.dir=, or leave that out"
        )


def _say(job: Job, ended: Ended) -> None:
    if ended.code == 1:
        # Rank 0's output has been shown already.
        if ended.rank:
            print(dispatch.last_lines(job.rundir, ended.rank), file=sys.stderr)
        print(
            f"rank {ended.rank} failed, which is a fault of erulab or of a plugin: {ended.message}; its log is "
            f"{job.rundir.rank_log(ended.rank)}",
            file=sys.stderr,
        )
    elif ended.code and (ended.rank or not _shown(job, ended)):
        print(ended.message, file=sys.stderr)
    print(f"run folder: {job.rundir.path}", flush=True)


def _shown(job: Job, ended: Ended) -> bool:
    """Whether rank 0 printed the message itself."""
    return ended.message in dispatch.last_lines(job.rundir, 0)
