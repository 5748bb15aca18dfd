"""Finds ranks that are silent: stopped, or waiting for something that does not come, while the others wait for them.

A rank works if its main thread wakes up (it ran a piece of Python, or polls a lock or a server), if its process or one
that it has started computes, or if it reads a disk. A rank that waits for other ranks is not silent while its pulse
beats (`pulse.py`); if all of them wait for one another, nothing will come. A rank that computes for ever is not found.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from erulab.launching.torchrun import TorchrunLog
from erulab.rundir import RunDir

LOOK_SECONDS = 1
STALE_SECONDS = 15  # a pulse that has not beaten for so long has stopped; a busy machine delays beats by seconds
BUSY_SHARE = 0.05  # of one core, from which on a process computes
# A process that has ended is torchrun's affair.
NOT_SILENT = (psutil.STATUS_DISK_SLEEP, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@dataclass(frozen=True)
class Silence:
    """A silent rank, and a clause that says so of it."""

    rank: int
    why: str


@dataclass
class _Watched:
    """What was last seen of one rank; times in seconds."""

    beat: dict[str, Any] = field(default_factory=dict)
    stale: float = 0.0  # since the last beat
    still: float = 0.0  # without work, and not waiting for other ranks
    waiting: float = 0.0  # without work, waiting for other ranks
    switches: int = -1  # voluntary context switches of the main thread
    computed: float = 0.0  # of the process
    computed_by_children: float = 0.0


class SilenceWatch:
    """Watches the ranks of this host."""

    def __init__(self, rundir: RunDir, seconds: float, *, gpus: bool, one_host: bool) -> None:
        """
        Args:
            rundir: where the ranks write their pulses.
            seconds: how long a rank may be silent.
            gpus: whether the ranks use GPUs. The main thread of a rank that waits for its GPU computes in vain.
            one_host: whether these are all ranks of the run.
        """
        self._rundir, self._seconds, self._gpus, self._one_host = rundir, seconds, gpus, one_host
        self._watched: dict[int, _Watched] = {}
        self._looked_at = time.monotonic()

    def look(self, log: TorchrunLog) -> Silence | None:
        """Looks at the ranks that have started here, once per second; returns the silence that has lasted too long.

        Args:
            log: of this host's torchrun, which names them.
        """
        elapsed = time.monotonic() - self._looked_at
        if elapsed < LOOK_SECONDS:
            return None
        self._looked_at = time.monotonic()
        # Where this process itself was stopped (a suspended job), the ranks were too.
        elapsed = min(elapsed, 2 * LOOK_SECONDS)
        for rank in log.ranks.values():
            self._update(self._watched.setdefault(rank, _Watched()), self._rundir.beat(rank), elapsed)
        return self._silence()

    def _silence(self) -> Silence | None:
        silent = {rank: one for rank, one in sorted(self._watched.items()) if one.still >= self._seconds}
        if silent:
            places = [f"rank {rank} has been silent{_place(one)}" for rank, one in silent.items()]
            return Silence(next(iter(silent)), f"{' and '.join(places)} for {self._seconds:g} s (engine.timeout)")
        everybody = self._watched.values()
        if self._one_host and everybody and min(one.waiting for one in everybody) >= self._seconds:
            places = [f"rank {rank}{_place(one)}" for rank, one in sorted(self._watched.items())]
            return Silence(
                0,
                f"all ranks have waited for one another for {self._seconds:g} s (engine.timeout): {', '.join(places)}",
            )
        return None

    def _update(self, one: _Watched, file: Path, elapsed: float) -> None:
        beat = _read_beat(file)
        one.stale = 0.0 if beat.get("number") != one.beat.get("number") else one.stale + elapsed
        one.beat = beat or one.beat
        waits = one.beat.get("waits", False) and one.stale < STALE_SECONDS
        if self._works(one, elapsed):
            one.still = one.waiting = 0.0
        elif waits:
            one.still, one.waiting = 0.0, one.waiting + elapsed
        else:
            one.still, one.waiting = one.still + elapsed, 0.0

    def _works(self, one: _Watched, elapsed: float) -> bool:
        if not one.beat:
            return False
        busy = BUSY_SHARE * elapsed
        try:
            process = psutil.Process(one.beat["pid"])
            before, one.switches = one.switches, process.num_ctx_switches().voluntary
            woke = one.switches != before
            was, one.computed = one.computed, self._compute_seconds(process)
            if woke or one.computed - was > busy or process.status() in NOT_SILENT:
                return True
            # Only of a rank that looks silent, because this looks through all processes of the machine.
            was, one.computed_by_children = one.computed_by_children, _seconds_of_children(process)
            return one.computed_by_children - was > busy
        except psutil.NoSuchProcess:  # it has ended, which torchrun sees
            return True

    def _compute_seconds(self, process: psutil.Process) -> float:
        if not self._gpus:
            times = process.cpu_times()
            return float(times.user + times.system)
        return sum(one.user_time + one.system_time for one in process.threads() if one.id != process.pid)


def _place(one: _Watched) -> str:
    return f" in {one.beat['where']}" if one.beat else " since it started"


def _seconds_of_children(process: psutil.Process) -> float:
    total = 0.0
    for child in process.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _read_beat(file: Path) -> dict[str, Any]:
    """Returns the last beat; empty if there is none, or it is just being written."""
    try:
        beat: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return beat
