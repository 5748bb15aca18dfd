"""Many runs: every job checked before the first starts, one after another, one table at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erulab import config as configuration
from erulab import environment, jobs
from erulab.errors import ErulabError
from erulab.jobs import Job
from erulab.redaction import redacted_text
from erulab.rundir import RunDir

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_all(
    typed: Sequence[Sequence[str]], compose: Callable[[list[str]], DictConfig], named: str | None
) -> list[int | None]:
    """Runs a sweep's jobs; returns their exit codes, None for a job that a signal kept from starting.

    Args:
        typed: each job's overrides; compose: gives their composition, with Hydra's node.
        named: the sweep folder, where the user names one; else `<output>/sweeps/<key of its jobs>`.
    Raises:
        ErulabError: a job cannot run: which, and why. Nothing has started then.
    """
    plans = _apart([_plan(number, list(one), compose) for number, one in enumerate(typed)])
    # Jobs that come down to one run (two spellings of a value) run once.
    unique = list({str(job.rundir.path): job for job in plans}.values())
    key = configuration.short_hash(sorted(job.rundir.path.name for job in unique))
    folder = Path(named or Path(unique[0].config.output) / "sweeps" / key)
    sweep = RunDir(folder)
    sweep.make()
    codes: dict[str, int | None] = {str(job.rundir.path): None for job in unique}

    def write() -> None:
        rows = [
            {"overrides": list(t), "folder": str(job.rundir.path), "code": codes[str(job.rundir.path)]}
            for t, job in zip(typed, plans, strict=True)
        ]
        command = redacted_text(environment.command())
        sweep.write_json(folder / "sweep.json", {"key": key, "command": command, "jobs": rows})

    write()
    for number, job in enumerate(unique):
        path = str(job.rundir.path)
        overrides = " ".join(typed[next(i for i, p in enumerate(plans) if str(p.rundir.path) == path)])
        print(f"job {number + 1} of {len(unique)}: {redacted_text(overrides)}", flush=True)
        if jobs.finished(job):
            print(f"finished before: {path}", flush=True)
            codes[path] = 0
        else:
            try:
                ended = jobs.run(_in_group(job, key))
            except ErulabError as error:  # its folder is in use, the disk is full: the others can go on
                print(error, flush=True)
                codes[path] = error.code
            else:
                codes[path] = ended.code
                if ended.stopped:
                    break
        write()
    write()
    _compare(sweep, [job.rundir.path for job in unique if job.rundir.run_yaml.is_file()])
    return [codes[str(job.rundir.path)] for job in plans]


def _plan(number: int, typed: list[str], compose: Callable[[list[str]], DictConfig]) -> Job:
    try:
        return jobs.plan(configuration.resolve_composed(compose(typed), typed))
    except ErulabError as error:
        raise type(error)(f"job {number} ({redacted_text(' '.join(typed))}): {error}") from None


def _apart(plans: list[Job]) -> list[Job]:
    """Jobs of one training that differ in attacks or stages share a folder when run alone; in a sweep they must not."""
    wanted: dict[str, set[str]] = {}
    for job in plans:
        wanted.setdefault(str(job.rundir.path), set()).add(_additions(job))
    return [
        dataclasses.replace(job, rundir=RunDir(f"{job.rundir.path}-{_additions(job)}"))
        if len(wanted[str(job.rundir.path)]) > 1
        else job
        for job in plans
    ]


def _additions(job: Job) -> str:
    values = configuration.plain(job.config)
    return configuration.short_hash([values["attack"], values["stages"]])


def _in_group(job: Job, key: str) -> Job:
    tracker = job.config.tracker
    if tracker.group is not None:
        return job
    config = dataclasses.replace(job.config, tracker=dataclasses.replace(tracker, group=key))
    return dataclasses.replace(job, config=config)


def _compare(sweep: RunDir, folders: list[Path]) -> None:
    # Jinja and matplotlib are loaded only where there is something to show.
    from erulab.reporting import compare

    known: list[Any] = [folder for folder in folders if RunDir(folder).scores_json.is_file()]
    if not known:
        return
    print(compare(known), flush=True)
    sweep.write_text(sweep.report_md, compare(known, "md"))
    sweep.write_text(sweep.report_html, compare(known, "html"))
    print(f"sweep folder: {sweep.path}", flush=True)
