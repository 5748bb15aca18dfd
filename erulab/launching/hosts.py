"""The hosts of one run: who is first, what each tells the others, and how all come to one end.

All of it goes through the run folder, which they share. The host that locks the folder is the first; it alone writes
run.yaml, env.json and exit.json. Another host of the same run, known by its meeting, takes one of the seats beside it;
any other run is told that the folder is in use. While it works each host keeps a note for the others: `host0.json`, ...
The first host's note also says that it is ready for the others, and, at the end, that exit.json holds the verdict.
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

READY_SECONDS = 60  # between locking the folder and being ready for others
NEWS_SECONDS = 1  # how often notes are read: the folder may be on a network
POLL_SECONDS = 0.1
LEAVE_SECONDS = 5  # how long the first host stays for others to read its verdict


@dataclass(frozen=True)
class Meeting:
    """Where the hosts of one run meet: how many they are, HOST:PORT, and the run's key."""

    nodes: int
    endpoint: str
    key: str


@dataclass(frozen=True)
class Failure:
    """A rank that failed by itself; `code` is minus the signal for a killed one."""

    rank: int
    code: int


@dataclass(frozen=True)
class Note:
    """What a host tells the others."""

    signals: int = 0  # that its user has sent it
    failing: bool = False  # one of its ranks has failed
    ended: bool = False  # nothing of the run is left on it
    failure: Failure | None = None
    lost: str | None = None  # its name, where it ended without a word; the others find that


class Host:
    """This host's place in a run."""

    def __init__(self, rundir: RunDir, seat: int = 0, meeting: Meeting | None = None, held: int | None = None) -> None:
        """`held`: the descriptor of its lock, which its workers inherit; None where nothing is locked (tests)."""
        self.seat, self.meeting = seat, meeting
        self.inherited = () if held is None else (held,)
        self.stopped_elsewhere = False  # whether the user of another host has sent it a signal
        self._rundir = rundir
        self._told: Note | None = None
        self._news: list[Note] = []
        self._read = 0.0

    @property
    def first(self) -> bool:
        return self.seat == 0

    @property
    def nodes(self) -> int:
        return self.meeting.nodes if self.meeting else 1

    @property
    def name(self) -> str:
        """As the user counts."""
        return f"host {self.seat + 1} of {self.nodes}"

    def tell(self, note: Note) -> None:
        """Writes this host's note, if it says anything new; the first host's first note lets the others in."""
        if self.meeting is not None and note != self._told:
            self._told = note
            self._rundir.write_json(self._rundir.host_note(self.seat), {**_self(), **dataclasses.asdict(note)})

    def others(self) -> list[Note]:
        """The newest notes of the other hosts that have come, in the order of their seats; looks once in a second."""
        if self.meeting is not None and time.monotonic() - self._read > NEWS_SECONDS:
            self._read = time.monotonic()
            notes = [self._note(seat) for seat in range(self.nodes) if seat != self.seat]
            self._news = [note for note in notes if note is not None]
            self.stopped_elsewhere = self.stopped_elsewhere or any(note.signals for note in self._news)
        return self._news

    def wait_for_others(self, seconds: float) -> list[Note]:
        """The other hosts' last notes, once all of them have ended, or after `seconds`."""
        self._wait(lambda: all(note.ended for note in self._fresh()), seconds)
        return self._fresh()

    def wait_for_verdict(self, seconds: float) -> None:
        """Until exit.json holds the first host's verdict, or that host is gone."""
        self._wait(lambda: all(note.ended for note in self._fresh()[:1]), seconds)

    def leave(self) -> None:
        """The first host's last act: others read the verdict, then all notes go."""
        if self.meeting is None or not self.first:
            return
        self.tell(dataclasses.replace(self._told or Note(), ended=True))
        seats = range(1, self.nodes)
        self._wait(lambda: not any(self._rundir.holder(seat) for seat in seats), LEAVE_SECONDS)
        _forget(self._rundir)

    def _fresh(self) -> list[Note]:
        self._read = -NEWS_SECONDS
        return self.others()

    def _note(self, seat: int) -> Note | None:
        file = self._rundir.host_note(seat)
        try:
            told = self._rundir.read_json(file)
        except FileNotFoundError:
            # The first host was here, since it let this one in; another may come yet.
            return None if seat else Note(failing=True, ended=True)
        # Whoever still works holds its seat, and so does its torchrun.
        if not told["ended"] and self._rundir.holder(seat) is None:
            return Note(told["signals"], failing=True, ended=True, lost=told["host"])
        failure = None if told["failure"] is None else Failure(**told["failure"])
        return Note(told["signals"], told["failing"], told["ended"], failure)

    @staticmethod
    def _wait(done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def joined(rundir: RunDir, meeting: Meeting | None) -> Iterator[Host]:
    """Holds the run folder, or a seat beside the first host of the same run.

    Raises:
        EnvironmentFault: the folder is in use by another run, or by as many hosts as the run has.
    """
    party = None if meeting is None else f"{meeting.key} on {meeting.nodes} hosts at {meeting.endpoint}"
    deadline = time.monotonic() + READY_SECONDS
    with contextlib.ExitStack() as stack:
        while True:
            try:
                held = stack.enter_context(rundir.locked(party))
            except InUse:
                holder = rundir.holder()
                foreign = holder is not None and holder.get("run_id", party) != party
                if meeting is None or foreign or time.monotonic() > deadline:
                    raise
                if holder and _ready(rundir, holder):
                    yield _seated(rundir, meeting, party, stack)
                    return
                time.sleep(POLL_SECONDS)
            else:
                _forget(rundir)
                _check_nobody_is_left(rundir)
                yield Host(rundir, 0, meeting, held)
                return


def check_address(meeting: Meeting) -> None:
    """Before the first host lets others in: what can be known to be wrong with the address from here.

    Raises:
        EnvironmentFault: no such host, or its port is in use on this one.
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


def _seated(rundir: RunDir, meeting: Meeting, party: str | None, stack: contextlib.ExitStack) -> Host:
    for seat in range(1, meeting.nodes):
        with contextlib.suppress(InUse):
            return Host(rundir, seat, meeting, stack.enter_context(rundir.locked(party, seat)))
    raise EnvironmentFault(
        f"{rundir.path} is in use by all {meeting.nodes} hosts of this run; type the command once on each host, or a "
        "larger engine.nodes on all of them"
    )


def _ready(rundir: RunDir, holder: dict[str, Any]) -> bool:
    file = rundir.host_note(0)
    if not file.is_file():
        return False
    note = rundir.read_json(file)
    return (note["pid"], note["host"]) == (holder["pid"], holder["host"])


def _check_nobody_is_left(rundir: RunDir) -> None:
    """Hosts of an earlier start, whose first host is gone, may still be ending."""
    for old in rundir.path.glob("lock[1-9]*"):
        with rundir.locked(host_index=int(old.name.removeprefix("lock"))):
            pass


def _forget(rundir: RunDir) -> None:
    for note in rundir.path.glob("host*.json"):
        note.unlink(missing_ok=True)


def _self() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}
