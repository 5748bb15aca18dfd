"""Jobs of a sweep share their imports: one process imports the worker's module, and forks a copy of itself per job.

The copy is a worker like any other: it has a session, a log, signals and an exit code of its own, and its end touches
no other job. `prepared_server.py` is the other side of the socket. Only Linux forks safely behind such imports.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from erulab.launching.processes import Process, start_process

SERVER = "erulab.launching.prepared_server"
GO = b"go"
# The size of the terminal, which a copy is told; a process with other variables than the server's is started anew.
TOLD = ("COLUMNS", "LINES")


class PreparedWorkers:
    """Starts workers as copies of a process that has imported the module of the first of them."""

    def __init__(self, trackers: Iterable[str] = ()) -> None:
        """
        Args:
            trackers: names of those that the runs use, which are imported too.
        """
        self._trackers = sorted(trackers)
        self._module = ""
        self._server: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._environment: dict[str, str] = {}

    def start(
        self, command: Sequence[str], log: Path | None, environment: Mapping[str, str], inherited: Sequence[int] = ()
    ) -> Process:
        """Starts `python -u -m MODULE FOLDER` as a copy; any other command, or with other variables, as a process.

        Args:
            command, log, environment, inherited: as for `start_process`.
        """
        program, module = list(command[:-2]), command[-2]
        if program != [sys.executable, "-u", "-m"] or log is None or sys.platform != "linux":
            return start_process(command, log, environment, inherited)
        if self._server is None or self._server.poll() is not None:
            self._start_server(module, environment)
        if module != self._module or _without_told(environment) != self._environment:
            return start_process(command, log, environment, inherited)
        assert self._server is not None and self._channel is not None
        return PreparedProcess(self._server, self._channel, command, log, environment, inherited)

    def close(self) -> None:
        """Ends the server; its copies have ended before."""
        if self._server is not None and self._channel is not None:
            self._channel.close()
            self._server.kill()  # it holds nothing
            self._server.wait()
            self._server = None

    def _start_server(self, module: str, environment: Mapping[str, str]) -> None:
        self.close()
        self._module, self._environment = module, _without_told(environment)
        self._channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._server = subprocess.Popen(
                [sys.executable, "-u", "-m", SERVER, str(other.fileno()), module, *self._trackers],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # where it cannot import, a process that is started instead says why
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=[other.fileno()],
                start_new_session=True,
            )


class PreparedProcess:
    """A copy of the server. While it has not been forked, the server stands for it."""

    def __init__(
        self,
        server: subprocess.Popen[bytes],
        channel: socket.socket,
        command: Sequence[str],
        log: Path | None,
        environment: Mapping[str, str],
        inherited: Sequence[int],
    ) -> None:
        self._server, self._channel = server, channel
        self._started_as = (command, log, environment, inherited)
        self._instead: Process | None = None  # an ordinary process, because the server could not be prepared
        self._copy: int | None = None
        self._code: int | None = None
        self._signalled: int | None = None
        told = {name: environment[name] for name in TOLD if name in environment}
        request = json.dumps({"folder": command[-1], "log": str(log), "variables": told})
        with contextlib.suppress(OSError):  # the server has ended; `poll` finds that
            socket.send_fds(channel, [request.encode()], list(inherited))

    @property
    def pid(self) -> int:
        """The process to look at and to kill."""
        return self._instead.pid if self._instead is not None else self._copy or self._server.pid

    def poll(self) -> int | None:
        """Returns the exit code, minus the signal that killed it, None while it runs."""
        if self._instead is not None:
            return self._instead.poll()
        while self._code is None and select.select([self._channel], [], [], 0)[0]:
            try:
                message = self._channel.recv(1024)
            except ConnectionError:
                message = b""
            if not message:
                return self._without_server()
            said = json.loads(message)
            self._code = said.get("code")
            if "pid" in said:
                # Only now: until then the copy is in the server's process group, and ends with it.
                self._copy = said["pid"]
                with contextlib.suppress(OSError):
                    self._channel.send(GO)
        return self._code

    def send_signal(self, number: int) -> None:
        """Sends a signal; one that comes while nothing runs yet ends it at once."""
        if self._instead is not None:
            self._instead.send_signal(number)
        elif self._copy is not None:
            os.kill(self._copy, number)
        else:
            self._signalled = number
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kills it."""
        if self._instead is not None:
            self._instead.kill()
        elif self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _without_server(self) -> int | None:
        """Goes on where the server has ended: it was killed, or it could not import the module."""
        if self._copy is None and self._signalled is None:
            self._instead = start_process(*self._started_as)
            return None
        # A copy that lives is killed by whoever follows this process; its exit code is lost.
        self._code = -(self._signalled or signal.SIGKILL)
        return self._code


@contextlib.contextmanager
def prepared_workers(trackers: Iterable[str] = ()) -> Iterator[PreparedWorkers]:
    """Opens workers that share their imports; the process behind them ends with the block."""
    workers = PreparedWorkers(trackers)
    try:
        yield workers
    finally:
        workers.close()


def _without_told(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in TOLD}
