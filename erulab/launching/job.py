"""One job, from a typed config to finished workers. `run.py` runs one, a sweep runs many."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

from erulab.config.compose import config_to_dict, load_config, save_config
from erulab.config.rules import check_job
from erulab.errors import ConfigError, ErulabError
from erulab.launching import engine_choice, finished, generator_choice, hosts, machine, workers
from erulab.launching.folder_key import folder_key
from erulab.launching.hosts import Meeting
from erulab.launching.machine import GPU
from erulab.launching.processes import Start, start_process
from erulab.launching.workers import RunExit
from erulab.options import EngineName, RunConfig
from erulab.rundir import RunDir, make_private
from erulab.tracking.checks import check_tracker, is_awaited

WORKER = "erulab.worker"
TRIES = 5  # starts of a run at most, each after another product of the cache was found to be damaged


@dataclass(frozen=True)
class Job:
    """A run that has passed every check that is possible before its workers start."""

    config: RunConfig
    rundir: RunDir
    gpus: list[GPU]
    key: str  # of what the run's results depend on


def plan_job(config: RunConfig, folder: str | None = None, gpus: list[GPU] | None = None) -> Job:
    """Chooses the engine and the run folder, and checks files, packages and GPUs. Writes only rows into the cache.

    Args:
        config: a composed config.
        folder: the run folder, if the user names one; None: `<output>/<dataset>/<method>-<key>`, with `checkpoint` in
            place of the method if the user names every model.
        gpus: the GPUs that the run will have; None: all that this process may use.
    Raises:
        ErulabError: one line, of the code that fits.
    """
    gpus = machine.gpus() if gpus is None else gpus
    config = dataclasses.replace(config, engine=engine_choice.choose_engine(config.engine, len(gpus)))
    check_job(config)
    engine_choice.check_machine(config, gpus)
    generator_choice.check_generator(config, gpus)
    check_tracker(config)
    key = folder_key(config)
    if folder is not None:
        return Job(config, RunDir(folder), gpus, key)
    made_by = "checkpoint" if config.only_given_models else config.method.name
    return Job(config, RunDir(Path(config.output) / config.dataset.name / f"{made_by}-{key}"), gpus, key)


def run_job(job: Job, start: Start = start_process) -> RunExit:
    """Writes run.yaml and env.json, runs this host's workers, and prints how the run ended if they could not.

    Args:
        start: starts the worker of a run of one process without GPUs.
    Raises:
        ErulabError: the folder cannot be used.
    """
    rundir, engine = job.rundir, job.config.engine
    rundir.make()
    if job.config.artifacts.private:
        make_private(rundir.path)
        make_private(Path(job.config.cache))
    with hosts.join_run(rundir, _meeting_of(job.config, job.key)) as host:
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
        # A process that has forked cannot use a GPU, and DeepSpeed sets up its own processes.
        forks = not job.gpus and engine.name is EngineName.local
        for _ in range(TRIES):
            ended = workers.run_workers(
                rundir,
                engine.processes or 1,
                WORKER,
                gpus=len(job.gpus),
                timeout=engine.timeout,
                host=host,
                start=start if forks else start_process,
            )
            # On several hosts the user types the command again, because all hosts have to.
            if not ended.again or ended.stopped or host.meeting is not None:
                break
        if host.first and ended.code == 0:
            finished.record_finished(rundir, job.config, job.key)
    report_exit(job, ended)
    return ended


def check_folder(job: Job) -> None:
    """Refuses a run folder that another run holds or made; makes nothing.

    Raises:
        ErulabError: as `run_job` would.
    """
    if job.rundir.path.is_dir():
        if job.rundir.holder() is not None:
            with job.rundir.locked():  # raises, in the words of a run that meets another one
                pass
        _check_same_run(job)


def is_finished(job: Job) -> bool:
    """Tells whether the run folder already holds everything that the job would make, made of what it would use now."""
    return finished.is_whole(job.rundir, job.config, job.key) and not is_awaited(job.rundir, job.config)


def show_finished(job: Job) -> None:
    """Prints the results of a finished run, and how to repeat it."""
    # Loads rich, so only when there is something to show.
    from erulab.reporting.results import show_results

    show_results(job.rundir, job.config)
    print(f"finished before; rerun=true repeats it\nrun folder: {job.rundir.path}", flush=True)


def _check_same_run(job: Job) -> None:
    """Refuses a folder that holds a run with other settings, or whose run.yaml is damaged.

    Raises:
        ConfigError: the folder, and what to type. A damaged run.yaml in a folder that erulab named is written anew,
            because the folder's name says which run it holds.
    """
    if not job.rundir.run_yaml.is_file():
        return
    own_name = f"-{job.key}" in job.rundir.path.name  # which says what run the folder holds
    try:
        before = folder_key(load_config(job.rundir.run_yaml))
    except ErulabError as error:
        if own_name:
            print(f"{error}; it is written anew", file=sys.stderr, flush=True)
            return
        raise ConfigError(
            f"{job.rundir.path} cannot be continued, its settings are unreadable ({error}); if it holds this run, "
            f"delete {job.rundir.run_yaml}, or name another folder with hydra.run.dir="
        ) from None
    if before != job.key and own_name:  # cut short, it can still be YAML
        line = f"{job.rundir.run_yaml} is damaged, it holds other settings than its folder's name; it is written anew"
        print(line, file=sys.stderr, flush=True)
    elif before != job.key:
        raise ConfigError(
            f"{job.rundir.path} holds a run with other settings (see its run.yaml); name another folder with "
            "hydra.run.dir=, or leave that out"
        )


def _meeting_of(config: RunConfig, key: str) -> Meeting | None:
    """Returns where the hosts of a run meet; None for a run on one host."""
    if config.engine.nodes == 1:
        return None
    assert config.engine.rendezvous is not None  # config.rules
    return Meeting(config.engine.nodes, config.engine.rendezvous, key)


def _check_same_command(job: Job) -> None:
    """Raises ConfigError if another command was typed on the first host, whose run.yaml all workers read."""
    first, here = (config_to_dict(c) for c in (load_config(job.rundir.run_yaml), job.config))
    differing = [key for key in here if here[key] != first[key]]
    if differing:
        raise ConfigError(
            f"the first host runs this with other settings of {', '.join(differing)} (see {job.rundir.run_yaml}); type "
            "the same command on each host, and engine.processes= where they have unequal numbers of GPUs"
        )


def report_exit(job: Job, ended: RunExit) -> None:
    """Prints how a run ended, unless rank 0 has already printed it on this host."""
    if ended.code == 1:
        if ended.rank or not ended.here:
            print(workers.last_lines(job.rundir, ended.rank), file=sys.stderr)
        print(
            f"rank {ended.rank} failed, which is a fault of erulab or of a plugin: {ended.message}; its log is "
            f"{job.rundir.rank_log(ended.rank)}",
            file=sys.stderr,
        )
    elif ended.code and (ended.rank or not ended.here or ended.message not in workers.last_lines(job.rundir, 0)):
        print(ended.message, file=sys.stderr)
    if ended.here:
        print(f"run folder: {job.rundir.path}", flush=True)
