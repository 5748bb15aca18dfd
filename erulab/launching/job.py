"""One run, from a typed config to finished workers: what `run.py` does once and a sweep for each of its jobs."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from erulab.config.compose import config_to_dict, load_config, save_config
from erulab.config.rules import check_job
from erulab.errors import ConfigError, ErulabError, IntegrityFault
from erulab.launching import hosts, machine, workers
from erulab.launching.folder_key import folder_key
from erulab.launching.hosts import Meeting
from erulab.launching.machine import GPU
from erulab.launching.workers import Ended
from erulab.options import RunConfig
from erulab.rundir import RunDir

WORKER = "erulab.worker"


@dataclass(frozen=True)
class Job:
    """A run that has been checked as far as it can be before its workers start."""

    config: RunConfig
    rundir: RunDir
    gpus: list[GPU]
    key: str  # of what the run's results depend on


def plan_job(config: RunConfig, folder: str | None = None, gpus: list[GPU] | None = None) -> Job:
    """Makes engine and run folder definite, and looks at files, packages and GPUs. Writes nothing but the
    rows of files, into the cache.

    Args:
        folder: the run folder, where the user names one; else `<output>/<dataset>/<method>-<key>`, with
            `checkpoint` for the method where every model is given.
        gpus: those the run will have; None: all that this process may use.
    Raises:
        ErulabError: one line, of the code that fits.
    """
    gpus = machine.gpus() if gpus is None else gpus
    config = dataclasses.replace(config, engine=workers.choose_engine(config.engine, len(gpus)))
    check_job(config)
    workers.check_machine(config, gpus)
    key = folder_key(config)
    if folder is not None:
        return Job(config, RunDir(folder), gpus, key)
    made_by = "checkpoint" if config.only_given_models else config.method.name
    return Job(config, RunDir(Path(config.output) / config.dataset.name / f"{made_by}-{key}"), gpus, key)


def run_job(job: Job) -> Ended:
    """Writes run.yaml and env.json, runs this host's workers, and says how the run ended where they could not.

    Raises:
        ErulabError: the folder cannot be used.
    """
    rundir, engine = job.rundir, job.config.engine
    rundir.make()
    with hosts.joined(rundir, _meeting(job)) as host:
        if host.first:
            _check_same_run(job)
            if host.meeting is not None:
                hosts.check_address(host.meeting)
            save_config(job.config, rundir.run_yaml)
            rundir.write_json(rundir.env_json, machine.describe(job.gpus))
        else:
            _check_same_command(job)
        if host.meeting is not None:
            print(f"{host.name}, meeting the others at {host.meeting.endpoint}; rank 0's shows the run", flush=True)
        ended = workers.run(rundir, engine.processes or 1, WORKER, gpus=len(job.gpus), host=host)
    _say(job, ended)
    return ended


def is_finished(job: Job) -> bool:
    """Whether the run folder already holds all that the job would make."""
    # The code of a plugin may have changed, which the folder's key does not show; the caches know.
    if job.config.rerun or job.config.plugins:
        return False
    try:
        ended = job.rundir.read_json(job.rundir.exit_json)
        before = yaml.safe_load(job.rundir.run_yaml.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, IntegrityFault, yaml.YAMLError):  # missing or damaged: not finished
        return False
    if not isinstance(ended, dict) or not isinstance(before, dict) or ended.get("code") != 0:
        return False
    now = config_to_dict(job.config)
    # The folder's key holds the rest.
    return all(before.get(part) == now[part] for part in ("attack", "stages", "artifacts", "evaluation"))


def _check_same_run(job: Job) -> None:
    """A folder that the user names may hold another run, whose files would be mixed with this one's."""
    if not job.rundir.run_yaml.is_file():
        return
    try:
        before = folder_key(load_config(job.rundir.run_yaml))
    except ErulabError:
        before = "unreadable"
    if before != job.key:
        raise ConfigError(
            f"{job.rundir.path} holds a run with other settings (see its run.yaml); name another folder with "
            "hydra.run.dir=, or leave that out"
        )


def _meeting(job: Job) -> Meeting | None:
    engine = job.config.engine
    if engine.nodes == 1:
        return None
    assert engine.rendezvous is not None  # config.rules
    return Meeting(engine.nodes, engine.rendezvous, job.key)


def _check_same_command(job: Job) -> None:
    """All hosts' workers read the first host's run.yaml: what was typed here must not be something else."""
    first, here = (config_to_dict(c) for c in (load_config(job.rundir.run_yaml), job.config))
    differing = [key for key in here if here[key] != first[key]]
    if differing:
        raise ConfigError(
            f"the first host runs this with other settings of {', '.join(differing)} (see {job.rundir.run_yaml}); type "
            "the same command on each host, and engine.processes= where they have unequal numbers of GPUs"
        )


def _say(job: Job, ended: Ended) -> None:
    if ended.code == 1:
        # Rank 0's output has been shown already, on its host.
        if ended.rank or not ended.here:
            print(workers.last_lines(job.rundir, ended.rank), file=sys.stderr)
        print(
            f"rank {ended.rank} failed, which is a fault of erulab or of a plugin: {ended.message}; its log is "
            f"{job.rundir.rank_log(ended.rank)}",
            file=sys.stderr,
        )
    elif ended.code and (ended.rank or not ended.here or not _shown(job, ended)):
        print(ended.message, file=sys.stderr)
    if ended.here:
        print(f"run folder: {job.rundir.path}", flush=True)


def _shown(job: Job, ended: Ended) -> bool:
    """Whether rank 0 printed the message itself."""
    return ended.message in workers.last_lines(job.rundir, 0)
