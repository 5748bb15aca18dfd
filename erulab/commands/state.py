"""The state of a run folder: done, running, stopped, failed, and how it is said."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from erulab.errors import Interrupted
from erulab.reporting.load import RunResult
from erulab.rundir import RunDir


class State(StrEnum):
    """What became of a run. `lost`: it ended without a word, as after a power cut or a kill of all its processes."""

    running = "running"
    done = "done"
    stopped = "stopped"
    failed = "failed"
    lost = "lost"
    damaged = "damaged"


@dataclass(frozen=True)
class Holder:
    """The process that holds a run folder; what is unknown is None."""

    pid: int | None
    host: str | None

    @property
    def words(self) -> str:
        return "another process" if self.pid is None else f"process {self.pid} on {self.host}"


def holder_of(rundir: RunDir) -> Holder | None:
    """Returns who works in a run folder, on any of its hosts; None if nobody does."""
    for lock in sorted(rundir.path.glob("lock*")):
        index = re.fullmatch(r"lock(\d*)", lock.name)
        if index is None:
            continue
        try:
            known = rundir.holder(int(index[1] or 0))
        except PermissionError:  # a private folder of another user
            return Holder(None, None)
        if known is not None:
            return Holder(known.get("pid"), known.get("host"))
    return None


def state_of(run: RunResult) -> State:
    """Returns the state of a run that was read with `load_figures` or `load_run`."""
    if holder_of(RunDir(run.path)) is not None:
        return State.running
    if run.damaged:
        return State.damaged
    if not run.ended:
        return State.lost
    return {0: State.done, Interrupted.code: State.stopped}.get(run.ended["code"], State.failed)


def started_at(run: RunResult) -> datetime:
    """Returns when the run's last command started; for a damaged env.json, when run.yaml was written."""
    try:
        found = datetime.fromisoformat(str(run.env.get("started")))
    except ValueError:
        return datetime.fromtimestamp(RunDir(run.path).run_yaml.stat().st_mtime, UTC)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def local_time(moment: datetime) -> str:
    """Writes a time on the clock of this machine: `2026-11-29 10:41`."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def wanted_stages(run: RunResult) -> list[str]:
    """Returns the stages that the run makes something in, in order: done ones, and those that are missing."""
    done = [name for name, entry in run.stages.items() if entry.get("done")]
    missing = run.missing
    return [stage for stage in map(str, run.config.get("stages") or []) if stage in done or stage in missing]


def read_last_line(file: Path, most: int = 1 << 16) -> str:
    """Returns the last line of a log that says something, without terminal escapes; empty if there is none.

    Args:
        most: bytes at the end of the file that are read.
    """
    if not file.is_file():
        return ""
    with file.open("rb") as opened:
        opened.seek(max(file.stat().st_size - most, 0))
        text = opened.read().decode("utf-8", "replace")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [line.strip() for line in re.split(r"[\r\n]", plain)]
    return next((line for line in reversed(lines) if line), "")


def options_named(run: RunResult, group: str) -> Any:
    """Returns the options of a part of the run's config; an empty dict where run.yaml is damaged."""
    options = run.config.get(group)
    return options if isinstance(options, dict) else {}
