"""Which processes of this machine hold a file open: who waits for it, or whether anybody still does."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil


def processes_that_hold(file: Path) -> list[int]:
    """Returns the ids of the processes that have a file open, as far as this user may know."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            opened = [one.path for one in process.open_files() if os.path.exists(one.path)]
            if any(os.path.samefile(path, file) for path in opened):
                found.append(process.pid)
    return found
