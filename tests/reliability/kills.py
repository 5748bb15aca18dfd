"""SIGKILL of the whole process tree at random moments; the same command is typed again until it is done."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.reliability.commands import Process, process
from tests.reliability.trials import Trial
from tests.reliability.world import METHODS, Outcome, litter, outcome, overrides

# Checkpoints of the unlearning are written at every step, so that many kills come while one is half done.
OPTIONS = ("trainer.save_every=1", "trainer.steps=20")
SWEEP = "-m"  # as an option of the engine: the run is the only job of a sweep, whose worker is forked
LIMIT = 600.0  # seconds for one command
_reference_lock = threading.Lock()


def trials(count: int, seed: int, engine: Sequence[str] = ("engine=local",), methods: int = 4) -> Iterator[Trial]:
    """Yields trials with one to three kills each, over the first `methods` methods in turn."""
    names = list(METHODS)[:methods]
    for number in range(count):
        method = names[number % len(names)]
        name = f"{method}, {' '.join(engine)}, seed {seed}, number {number}"

        def holds(folder: Path, method: str = method, number: int = number) -> str | None:
            return survive(folder, method, random.Random(f"{seed} {number}"), tuple(engine))

        kind = "sweep" if SWEEP in engine else engine[0].partition("=")[2]
        yield Trial(f"kills ({kind})", name, holds)


def survive(folder: Path, method: str, draws: random.Random, engine: tuple[str, ...]) -> str | None:
    """Kills one run some times and compares its results with those of a run that was left alone."""
    whole, cpu_seconds = _uninterrupted(method, engine)
    output = folder / "o"
    options = overrides(output, *METHODS[method], *OPTIONS, engine=engine)
    kills = 0
    for number in range(draws.randint(1, 3)):
        # Measured in CPU seconds, the moments are spread over the run however busy the machine is.
        moment = draws.uniform(0.02, 0.95) * cpu_seconds
        with process(options, folder / f"log{number}") as running:
            if not _wait_for_cpu(running, moment):
                early = running.wait(LIMIT)
                if early.code != 0:
                    return f"after {kills} kills the same command ends with {early.code}: {early.last_line}"
                break
        kills += 1
    if not kills:
        return "not killed: the run ended first"
    with process(options, folder / "log") as running:
        ended = running.wait(LIMIT)
    if ended.code != 0:
        return f"after the kills the same command ends with {ended.code}: {ended.last_line}"
    if left := litter(output):
        return f"litter: {', '.join(left[:3])}"
    return outcome(output).difference(whole)


def _wait_for_cpu(running: Process, moment: float) -> bool:
    """Waits until the whole tree has used this many CPU seconds; returns False if it ends before."""
    while running.poll() is None:
        if sum(running.tree().values()) >= moment:
            return True
        time.sleep(0.005)
    return False


@cache
def _measure(method: str, engine: tuple[str, ...]) -> tuple[Outcome, float]:
    with TemporaryDirectory(prefix="reliability-") as name:
        folder = Path(name)
        options = overrides(folder / "o", *METHODS[method], *OPTIONS, engine=engine)
        used = 0.0
        with process(options, folder / "log") as running:
            while running.poll() is None:
                used = max(used, sum(running.tree().values()))
                time.sleep(0.02)
            ended = running.wait(LIMIT)
        assert ended.code == 0, ended.said[-2000:]
        return outcome(folder / "o"), used


def _uninterrupted(method: str, engine: tuple[str, ...]) -> tuple[Outcome, float]:
    """Returns what a run gives that nobody kills, and the CPU seconds of its processes."""
    with _reference_lock:
        return _measure(method, tuple(option for option in engine if option != SWEEP))  # a sweep gives the same


def prepare(count: int, engine: Sequence[str] = ("engine=local",), methods: int = 4) -> None:
    """Makes the runs that the trials are compared with, before the trials' processes are copied from this one."""
    for method in list(METHODS)[: min(count, methods)]:
        _uninterrupted(method, tuple(engine))
