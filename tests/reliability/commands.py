"""Commands as a user types them: as processes of their own, or in a copy of this process, which starts at once."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import psutil

ROOT = Path(__file__).parents[2]
MARK = "ERULAB_RELIABILITY_TRIAL"  # in the environment of a command and of all processes that it starts
TRACEBACK = "Traceback (most recent call last)"
HUNG = 124  # the exit code of a command that was ended because it ran past its limit
ALLOWED = (0, 2, 3, 4, 5, 6, 75)
PYTHON_WARNING = re.compile(r"^\S+:\d+: \w*Warning: .*\n(  .*\n)?", re.MULTILINE)
_copied = False  # whether this process is a copy that in_fork has made


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    said: str  # stdout and stderr together

    @property
    def fault(self) -> str | None:
        """What no input may cause: a hang, a traceback or a code for a bug of erulab; None if there is none of them."""
        if self.code == HUNG:
            return "hangs"
        if TRACEBACK in self.said:
            return f"exit {self.code} with a traceback: {self.last_line}"
        if self.code not in ALLOWED:
            return f"exit {self.code}: {self.last_line}"
        return f"exit {self.code} without a word" if self.code != 0 and not self.last_line else None

    @property
    def refusal_fault(self) -> str | None:
        """What no input may cause before anything is trained: a fault, or a refusal in more than one line.

        Warnings may stand beside the line.
        """
        said = PYTHON_WARNING.sub("", self.said)
        lines = [line for line in said.splitlines() if line.strip() and " WARNING " not in line]
        if self.fault is None and self.code != 0 and len(lines) != 1:
            return f"exit {self.code} with {len(lines)} lines: {' | '.join(lines)[:300]}"
        return self.fault

    @property
    def last_line(self) -> str:
        """The last line that was printed and is not about folders."""
        lines = [line for line in self.said.splitlines() if line.strip() and not line.startswith("run folder:")]
        return lines[-1][:300] if lines else ""


def in_fork(call: Callable[[], int], limit: float, *, memory: int | None = None, files: int | None = None) -> Ended:
    """Calls a function in a copy of this process, with its output kept and its changes lost.

    Args:
        call: returns an exit code.
        limit: seconds after which the copy is killed, with the processes that it started. What a copy within a copy
            leaves behind is killed with the outermost.
        memory: bytes of address space that it may have; None: no limit.
        files: bytes that it may write to one file; None: no limit.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _become_child(call, writing, memory, files)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as output:
        said, hung = _read_until(output, time.monotonic() + limit)
    if hung:
        for started in [*psutil.Process(child).children(recursive=True), psutil.Process(child)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                started.kill()
    _, status = os.waitpid(child, 0)
    if not _copied:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # what it left behind
    return Ended(HUNG if hung else os.waitstatus_to_exitcode(status), said)


def _become_child(call: Callable[[], int], output: int, memory: int | None, files: int | None) -> None:
    """Runs `call` in the copy and ends it: nothing of the caller's stack is unwound."""

    def limited() -> int:
        global _copied
        if not _copied:  # one group for all that the outermost copy starts
            os.setpgid(0, 0)
        _copied = True
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
        faulthandler.disable()
        for number in (signal.SIGALRM, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        if files is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails with EFBIG
            resource.setrlimit(resource.RLIMIT_FSIZE, (files, files))
        return call()

    _end_with(limited)


def _end_with(call: Callable[[], int]) -> NoReturn:
    """Ends this copy with the code that `call` returns; 1, after the traceback, for an exception."""
    code = 1
    try:
        code = call()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _read_until(output: IO[bytes], deadline: float) -> tuple[str, bool]:
    """Returns all that is written before the other end closes or the deadline comes, and whether that came first."""
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if select.select([output], [], [], left)[0]:
            part = output.read(1 << 16)
            if not part:
                return b"".join(parts).decode(errors="replace"), False
            parts.append(part)
    return b"".join(parts).decode(errors="replace"), True


def typed(overrides: Sequence[str], limit: float = 120, *, files: int | None = None) -> Ended:
    """`python -m erulab.run OVERRIDES` in a copy of this process, its worker in another copy.

    Args:
        overrides: with engine=local.
        limit: seconds.
        files: bytes that each process may write to one file; None: no limit.
    """
    return in_fork(lambda: _run(overrides), limit, files=files)


def _run(overrides: Sequence[str]) -> int:
    from erulab import run
    from erulab.launching import job

    os.environ["PYTHONPATH"] = str(ROOT)
    sys.argv = ["erulab.run", *overrides]
    job.workers.run_workers = _worker_in_fork  # type: ignore[assignment]
    return run.cli()


def _worker_in_fork(rundir, processes, module, *, gpus=0, timeout=600, host=None, start=None):  # type: ignore[no-untyped-def]
    """Stands in for `run_workers`: the worker is a copy of this process, so that nothing is imported again."""
    from erulab import worker
    from erulab.launching import workers
    from erulab.launching.hosts import Failure, HostStatus

    assert processes == 1
    rundir.clear()
    pid = os.fork()
    if pid == 0:
        _end_with(lambda: worker.main([str(rundir.path)]))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    failure = Failure(0, code) if code else None
    ended = workers._decide_exit(
        rundir, code, [HostStatus(failing=bool(code), ended=True, failure=failure)], torchrun_stopped=False
    )
    rundir.write_json(rundir.exit_json, {"code": ended.code, "message": ended.message, "rank": ended.rank})
    return ended


class Process:
    """`python -m erulab.run OVERRIDES` as a process of its own, whose whole tree can be found, timed and killed."""

    def __init__(self, overrides: Sequence[str], log: Path, **variables: str) -> None:
        self.log = log
        self._mark = f"{MARK}={uuid.uuid4().hex}".encode()
        name, _, value = self._mark.decode().partition("=")
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "erulab.run", *overrides],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1", name: value, **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def tree(self) -> dict[int, float]:
        """Returns the CPU seconds of every living process that carries this command's mark, by process id."""
        ticks = os.sysconf("SC_CLK_TCK")
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                if self._mark in (folder / "environ").read_bytes().split(b"\0"):
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    if fields[0] != "Z":
                        # Own time and that of children that have ended.
                        found[int(folder.name)] = sum(map(int, fields[11:15])) / ticks
        return found

    def kill(self) -> None:
        """Kills the whole tree with SIGKILL, until none of it is left."""
        while tree := self.tree():
            for pid in tree:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self._popen.wait()

    def poll(self) -> int | None:
        """Returns the exit code, None while it runs."""
        return self._popen.poll()

    def wait(self, limit: float) -> Ended:
        """Waits for the end; kills what runs past `limit` seconds."""
        try:
            code = self._popen.wait(limit)
        except subprocess.TimeoutExpired:
            self.kill()
            code = HUNG
        return Ended(code, self.log.read_text(errors="replace"))


@contextlib.contextmanager
def process(overrides: Sequence[str], log: Path, **variables: str) -> Iterator[Process]:
    """Starts a command, and ends it with the block."""
    started = Process(overrides, log, **variables)
    try:
        yield started
    finally:
        started.kill()
