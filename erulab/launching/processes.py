"""Child processes: each in a session of its own, stopped by the signals that reach us, outliving us never."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import psutil

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
LOOK_SECONDS = 1
POLL_SECONDS = 0.1


class Child:
    """A process and all that it starts, also when it is gone itself."""

    def __init__(
        self, command: Sequence[str], log: Path | None, environment: Mapping[str, str], inherited: Sequence[int] = ()
    ) -> None:
        """Starts it, writing to `log` (None: where we write); `inherited`: file descriptors that it keeps."""
        with contextlib.nullcontext() if log is None else log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=inherited,
                # Ctrl-C reaches the whole foreground group: a child must get it once, from us.
                start_new_session=True,
            )
        self._known: set[psutil.Process] = set()
        self._looked = 0.0
        self._published = False

    def poll(self) -> int | None:
        """The return code, None while it runs; remembers descendants, once a second."""
        self._look()
        return self._process.poll()

    def send_signal(self, number: int) -> None:
        """Passes a signal on; only the first is, since two would mean to end at once."""
        if self._published:
            return
        self._published = True
        with contextlib.suppress(ProcessLookupError):
            # Workers stop alike on every signal; while they still import, only SIGINT would print a traceback. SIGUSR2
            # is submitit's, they do not know it.
            self._process.send_signal(signal.SIGTERM if number in (signal.SIGINT, signal.SIGUSR2) else number)

    def kill_descendants(self) -> None:
        self._looked = 0.0
        self._look()
        # A copy: a signal's handler may look too, and find more, meanwhile.
        for process in list(self._known):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def kill(self) -> None:
        self.kill_descendants()
        # A descendant whose parent ended between two looks is found by its group alone. Where nobody is left of it,
        # some systems say that it may not be signalled.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def _look(self) -> None:
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            with contextlib.suppress(psutil.NoSuchProcess):
                self._known.update(psutil.Process(self._process.pid).children(recursive=True))


def run_to_end(command: Sequence[str], numbers: Sequence[int] = FORWARDED) -> int:
    """Runs one child, passing signals on; its return code, 128 + the signal for a killed one, as shells say it."""
    children: list[Child] = []
    with forward_signals(children, numbers) as signals:
        child = Child(command, None, os.environ)
        children.append(child)
        for number in signals:  # that came before there was anybody to pass it on to
            child.send_signal(number)
        while (code := child.poll()) is None:
            time.sleep(POLL_SECONDS)
        child.kill()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def forward_signals(children: list[Child], numbers: Sequence[int] = FORWARDED) -> Iterator[list[int]]:
    """Passes the first signal on to `children`, for a checkpoint; the second kills them.

    Yields the signals that came. The list of children may change meanwhile; whoever adds a child looks whether a
    signal came first. Whatever ends the block, no child is left.
    """
    came: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for child in list(children):
            child.send_signal(number) if len(came) == 1 else child.kill()

    before = {number: signal.signal(number, receive) for number in numbers}
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
