"""The hosts of one run: which is the first, what each tells the others, and how all come to the same end.

The hosts communicate through the run folder, which they share. The host that locks the folder is the first; it alone
writes run.yaml, env.json and exit.json. Another host of the same run, recognised by its meeting, takes one of the other
host indices; any other run gets the error that the folder is in use. While it works, each host keeps its status in a
file for the others: `host0.json`, ... The first host's status also says that it is ready for the others and, at the
end, that exit.json holds the verdict.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from erulab.errors import EnvironmentFault
from erulab.rundir import InUse, RunDir

READY_SECONDS = 60  # at most, between locking the folder and being ready for other hosts
READ_SECONDS = 1  # between two reads of the statuses, because the folder may be on a network
POLL_SECONDS = 0.1
LEAVE_SECONDS = 5  # how long the first host waits for the others to read its verdict


@dataclass(frozen=True)
class Meeting:
    """Where the hosts of one run meet: their number, HOST:PORT, and the run's key."""

    nodes: int
    endpoint: str
    key: str


@dataclass(frozen=True)
class Failure:
    """A rank that failed by itself; `code` is minus the signal if it was killed."""

    rank: int
    code: int
    silence: str | None = None  # what is said of a rank that this host killed because it was silent


@dataclass(frozen=True)
class HostStatus:
    """The status that a host publishes for the others."""

    signals: int = 0  # number of signals that its user has sent
    failing: bool = False  # one of its ranks has failed
    ended: bool = False  # no process of the run is left on it
    failure: Failure | None = None
    lost: str | None = None  # the host's name, if it disappeared while it worked; other hosts set this


class Host:
    """This host's place in a run."""

    def __init__(
        self, rundir: RunDir, host_index: int = 0, meeting: Meeting | None = None, lock: int | None = None
    ) -> None:
        """
        Args:
            rundir: the run folder.
            host_index: 0 for the first host.
            meeting: None for a run on one host.
            lock: the descriptor of this host's lock, which its workers inherit; None if nothing is locked (tests).
        """
        self.host_index, self.meeting = host_index, meeting
        self.inherited = () if lock is None else (lock,)
        self.stopped_elsewhere = False  # whether another host's user has sent it a signal
        self._rundir = rundir
        self._published: HostStatus | None = None
        self._others: list[HostStatus] = []
        self._read_at = 0.0

    @property
    def first(self) -> bool:
        return self.host_index == 0

    @property
    def nodes(self) -> int:
        return self.meeting.nodes if self.meeting else 1

    @property
    def name(self) -> str:
        """The host's number as users count, from 1: `host 2 of 3`."""
        return f"host {self.host_index + 1} of {self.nodes}"

    def publish(self, status: HostStatus) -> None:
        """Writes this host's status if it has changed. The first host's first status lets the others in."""
        if self.meeting is not None and status != self._published:
            self._published = status
            content = {**_this_process(), **dataclasses.asdict(status)}
            self._rundir.write_json(self._rundir.host_note(self.host_index), content)

    def others(self) -> list[HostStatus]:
        """Returns the latest statuses of the other hosts that have joined, by host index; reads once per second."""
        if self.meeting is not None and time.monotonic() - self._read_at > READ_SECONDS:
            self._read_at = time.monotonic()
            statuses = [self._read_status(index) for index in range(self.nodes) if index != self.host_index]
            self._others = [status for status in statuses if status is not None]
            self.stopped_elsewhere = self.stopped_elsewhere or any(status.signals for status in self._others)
        return self._others

    def wait_for_others(self, seconds: float) -> list[HostStatus]:
        """Returns the other hosts' last statuses once all of them have ended, or after `seconds`."""
        self._wait(lambda: all(status.ended for status in self._others_now()), seconds)
        return self._others_now()

    def wait_for_verdict(self, seconds: float) -> None:
        """Waits until exit.json holds the first host's verdict, that host is gone, or `seconds` have passed."""
        self._wait(lambda: all(status.ended for status in self._others_now()[:1]), seconds)

    def leave(self) -> None:
        """Ends the run on the first host: waits for the others to read the verdict, then deletes all statuses."""
        if self.meeting is None or not self.first:
            return
        self.publish(dataclasses.replace(self._published or HostStatus(), ended=True))
        others = range(1, self.nodes)
        self._wait(lambda: not any(self._rundir.holder(index) for index in others), LEAVE_SECONDS)
        _delete_statuses(self._rundir)

    def _others_now(self) -> list[HostStatus]:
        self._read_at = -READ_SECONDS
        return self.others()

    def _read_status(self, host_index: int) -> HostStatus | None:
        """Returns the status of another host; None for one that has not joined yet."""
        file = self._rundir.host_note(host_index)
        try:
            status = self._rundir.read_json(file)
        except FileNotFoundError:
            # The first host was here, because it let this one in; another host may still join.
            return None if host_index else HostStatus(failing=True, ended=True)
        # A host that works holds its lock, and so does its torchrun.
        if not status["ended"] and self._rundir.holder(host_index) is None:
            return HostStatus(status["signals"], failing=True, ended=True, lost=status["host"])
        failure = None if status["failure"] is None else Failure(**status["failure"])
        return HostStatus(status["signals"], status["failing"], status["ended"], failure)

    @staticmethod
    def _wait(done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def join_run(rundir: RunDir, meeting: Meeting | None) -> Iterator[Host]:
    """Locks the run folder as the first host, or takes another host index of the same run.

    Args:
        rundir: the run folder.
        meeting: None for a run on one host.
    Raises:
        EnvironmentFault: the folder is in use by another run, or by as many hosts as the run has.
    """
    run_id = None if meeting is None else f"{meeting.key} on {meeting.nodes} hosts at {meeting.endpoint}"
    deadline = time.monotonic() + READY_SECONDS
    with contextlib.ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(rundir.locked(run_id))
            except InUse:
                holder = rundir.holder()
                other_run = holder is not None and holder.get("run_id", run_id) != run_id
                if meeting is None or other_run or time.monotonic() > deadline:
                    raise
                if holder and _first_host_is_ready(rundir, holder):
                    yield _join_as_another_host(rundir, meeting, run_id, stack)
                    return
                time.sleep(POLL_SECONDS)
            else:
                _delete_statuses(rundir)
                _check_earlier_hosts_ended(rundir)
                yield Host(rundir, 0, meeting, lock)
                return


def check_address(meeting: Meeting) -> None:
    """Checks the address on the first host, before it lets others in.

    Raises:
        EnvironmentFault: no such host, or the port is in use on this one.
    """
    host, _, given = meeting.endpoint.rpartition(":")
    port = int(given)
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):  # UnicodeError: an empty part, or one too long
        raise EnvironmentFault(
            f"engine.rendezvous={meeting.endpoint}: no host of that name is known here; type the name or the "
            "address of one of the hosts"
        ) from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:  # an address of another host cannot be tried from here
            if error.errno == errno.EADDRINUSE:
                raise EnvironmentFault(
                    f"engine.rendezvous={meeting.endpoint}: the port is in use; try engine.rendezvous={host}:"
                    f"{port + 1 if port < 65535 else port - 1} on all hosts"
                ) from None


def _join_as_another_host(rundir: RunDir, meeting: Meeting, run_id: str | None, stack: contextlib.ExitStack) -> Host:
    for host_index in range(1, meeting.nodes):
        with contextlib.suppress(InUse):
            return Host(rundir, host_index, meeting, stack.enter_context(rundir.locked(run_id, host_index)))
    raise EnvironmentFault(
        f"{rundir.path} is in use by all {meeting.nodes} hosts of this run; type the command once on each host, or a "
        "larger engine.nodes on all of them"
    )


def _first_host_is_ready(rundir: RunDir, holder: dict[str, Any]) -> bool:
    """Tells whether the process that holds the folder has published a status."""
    file = rundir.host_note(0)
    if not file.is_file():
        return False
    status = rundir.read_json(file)
    return (status["pid"], status["host"]) == (holder["pid"], holder["host"])


def _check_earlier_hosts_ended(rundir: RunDir) -> None:
    """Raises InUse if hosts of an earlier start, whose first host is gone, have not ended yet."""
    for old in rundir.path.glob("lock[1-9]*"):
        with rundir.locked(host_index=int(old.name.removeprefix("lock"))):
            pass


def _delete_statuses(rundir: RunDir) -> None:
    for file in rundir.path.glob("host*.json"):
        file.unlink(missing_ok=True)


def _this_process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}
