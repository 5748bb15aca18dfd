"""Child processes: each in a session of its own, stopped by the signals that reach this one, ended with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol

import psutil

from erulab.command import STOP_SIGNALS, handle_stop_signals

LOOK_SECONDS = 1
POLL_SECONDS = 0.1


class Process(Protocol):
    """What a child is made of: a started process in a session of its own."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def send_signal(self, number: int) -> None: ...

    def kill(self) -> None: ...


Start = Callable[[Sequence[str], "Path | None", Mapping[str, str], Sequence[int]], Process]


def start_process(
    command: Sequence[str], log: Path | None, environment: Mapping[str, str], inherited: Sequence[int] = ()
) -> Process:
    """Starts a process.

    Args:
        command: program and arguments.
        log: file for its output; None: where this process writes.
        environment: its environment variables.
        inherited: file descriptors that it keeps open.
    """
    with contextlib.nullcontext() if log is None else log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=inherited,
            # Ctrl-C reaches the whole foreground group: a child must get it only once, from this process.
            start_new_session=True,
        )


class Child:
    """A process with everything it starts, including what is left of it when it has ended."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path | None,
        environment: Mapping[str, str],
        inherited: Sequence[int] = (),
        start: Start = start_process,
    ) -> None:
        """Starts the process.

        Args:
            command, log, environment, inherited: as for `start_process`.
            start: starts it; `PreparedWorkers.start` without its imports.
        """
        self._process = start(command, log, environment, inherited)
        self._descendants: set[psutil.Process] = set()
        self._looked_at = 0.0
        self._signalled = False

    def poll(self) -> int | None:
        """Returns the return code, None while the process runs; remembers its descendants, once per second."""
        self._find_descendants()
        return self._process.poll()

    def send_signal(self, number: int) -> None:
        """Passes a signal on; only the first, because two would mean to end at once."""
        if self._signalled:
            return
        self._signalled = True
        with contextlib.suppress(ProcessLookupError):
            # Workers stop alike on every signal, but while they import, SIGINT would print a traceback. SIGUSR2 comes
            # from submitit, and workers have no handler for it.
            self._process.send_signal(signal.SIGTERM if number in (signal.SIGINT, signal.SIGUSR2) else number)

    def kill_descendants(self) -> None:
        """Kills everything that the process has started, but not the process itself."""
        self._looked_at = 0.0
        self._find_descendants()
        # A copy, because a signal handler may find more descendants meanwhile.
        for process in list(self._descendants):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def kill(self) -> None:
        """Kills the process and everything that it has started."""
        self.kill_descendants()
        # A descendant whose parent ended between two looks is found only by its process group. If nobody is left of the
        # group, some systems answer that it may not be signalled.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def _find_descendants(self) -> None:
        if time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._looked_at = time.monotonic()
            with contextlib.suppress(psutil.NoSuchProcess):
                self._descendants.update(psutil.Process(self._process.pid).children(recursive=True))


def run_to_end(command: Sequence[str], numbers: Sequence[int] = STOP_SIGNALS) -> int:
    """Runs one child to its end and passes signals on.

    Args:
        command: program and arguments.
        numbers: the signals to be passed on.
    Returns:
        Its return code; 128 + the signal for a killed one, as in shells.
    """
    children: list[Child] = []
    with forward_signals(children, numbers) as signals:
        child = Child(command, None, os.environ)
        children.append(child)
        for number in signals:  # those that came before there was a child
            child.send_signal(number)
        while (code := child.poll()) is None:
            time.sleep(POLL_SECONDS)
        child.kill()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def forward_signals(children: list[Child], numbers: Sequence[int] = STOP_SIGNALS) -> Iterator[list[int]]:
    """Passes the first signal on to `children`, so that they write a checkpoint; the second signal kills them.

    Yields the list of signals that have come. The block may add and remove children; it must send to a new child the
    signals that came before. However the block ends, no child is left.
    """
    came: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for child in list(children):
            child.send_signal(number) if len(came) == 1 else child.kill()

    before = handle_stop_signals(receive, numbers)
    try:
        yield came
    finally:
        try:
            for child in children:
                if child.poll() is None:
                    child.kill()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
