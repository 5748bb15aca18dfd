"""Ranks and launchers that stop or die: the run ends in time with 75 and names who was silent."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from erulab.launching.silence import STALE_SECONDS
from tests.reliability.commands import Process, process
from tests.reliability.trials import Trial
from tests.reliability.world import litter, overrides

# Seconds of engine.timeout: a rank that is stopped in an exchange counts as waiting until its pulse is stale.
TIMEOUT = STALE_SECONDS + 5
PATIENCE = 30  # seconds beyond it in which everything must have ended
STOPPED = 75
START_LIMIT = 300.0  # seconds until the unlearning has begun
ENGINE = ("engine=zero2", "engine.processes=2", f"engine.timeout={TIMEOUT}")
OPTIONS = ("trainer.steps=4000", "trainer.save_every=5", "attack=none", "stages=[target,unlearn]")
# (name, signal, who); a rank is found by its RANK, torchrun by having none.
EVENTS = (
    ("rank 1 is stopped", signal.SIGSTOP, "1"),
    ("rank 0 is stopped", signal.SIGSTOP, "0"),
    ("rank 1 is killed", signal.SIGKILL, "1"),
    ("torchrun is killed", signal.SIGKILL, None),
    ("rank 1 gets SIGTERM", signal.SIGTERM, "1"),
)


def trials(count: int, seed: int) -> Iterator[Trial]:
    """Yields `count` trials; the events come in turn, at random moments of the unlearning."""
    for number in range(count):
        name, which, who = EVENTS[number % len(EVENTS)]

        def holds(folder: Path, which: int = which, who: str | None = who, number: int = number) -> str | None:
            return ends_in_time(folder, which, who, random.Random(f"{seed} {number}"))

        yield Trial("silent and lost ranks", f"{name}, seed {seed}, number {number}", holds)


def ends_in_time(folder: Path, which: int, who: str | None, draws: random.Random) -> str | None:
    """Sends a signal to one process of the unlearning, and waits for the end of all."""
    output = folder / "o"
    with process(overrides(output, *OPTIONS, engine=ENGINE), folder / "log") as running:
        deadline = time.monotonic() + START_LIMIT
        while not list(output.glob(".cache/unlearned/*.partial/checkpoints/step-*")):
            if running.poll() is not None:
                return f"ended with {running.poll()} before the unlearning: {running.wait(1).last_line}"
            if time.monotonic() > deadline:
                return "the unlearning did not begin"
            time.sleep(0.05)
        time.sleep(draws.uniform(0, 1))
        pid = _find(running, who)
        if pid is None:
            return f"no process with RANK={who}"
        os.kill(pid, which)
        started = time.monotonic()
        ended = running.wait(TIMEOUT + PATIENCE)
        seconds = time.monotonic() - started
        survivors = set(running.tree())
    if ended.fault is not None:
        return f"after {seconds:.0f} s: {ended.fault}"
    if ended.code != STOPPED:
        return f"exit {ended.code}, not {STOPPED}: {ended.last_line}"
    if survivors:
        return f"{len(survivors)} processes live on"
    if which == signal.SIGSTOP and f"rank {who} has been silent" not in ended.said:
        return f"rank {who} is not named: {ended.last_line}"
    left = [name for name in litter(output) if not name.endswith(".partial") and ".writing-" not in name]
    return f"litter: {left[0]}" if left else None


def _find(running: Process, who: str | None) -> int | None:
    """Returns the process id of a rank; of torchrun, if `who` is None."""
    for pid in sorted(running.tree()):
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            rank = next((v[5:].decode() for v in variables if v.startswith(b"RANK=")), None)
            of_torchrun = rank is None and b"torch" in command and pid != running.pid
            if (who is None and of_torchrun) or (who is not None and rank == who and b"erulab.worker" in command):
                return pid
    return None
