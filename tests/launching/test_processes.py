"""Child processes never outlive the block that follows them, whatever ends it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from erulab.launching.processes import Child, forward_signals


def works(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def written(file: Path) -> int:
    """Waits for the process id that a shell writes to the file, and returns it."""
    deadline = time.monotonic() + 10
    while not (file.is_file() and file.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.01)
    return int(file.read_text())


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while works(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not works(pid)


def test_an_exception_leaves_no_child(tmp_path: Path) -> None:
    children: list[Child] = []
    with pytest.raises(OSError, match="disk"), forward_signals(children):
        children.append(Child(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], None, os.environ))
        sleeper = written(tmp_path / "pid")
        assert works(sleeper)
        raise OSError("the disk is full")
    assert gone(sleeper)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_orphan_that_was_never_seen_is_killed(tmp_path: Path) -> None:
    """Its parent ended before the first look, so it is found only by its process group."""
    child = Child(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid"], None, os.environ)
    sleeper = written(tmp_path / "pid")
    assert gone(os.getpgid(sleeper))
    child.kill()
    assert gone(sleeper)
