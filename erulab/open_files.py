"""Which processes of this machine hold a file open: who is waited for, or whether anybody still is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import psutil


def holders_of(files: Sequence[Path]) -> dict[Path, list[int]]:
    """Returns the ids of the processes that have each file open, as far as this user may know."""
    found: dict[Path, list[int]] = {file: [] for file in files}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            opened = {_identity(one.path) for one in process.open_files()}
            for file, holders in found.items():
                if (wanted := _identity(file)) is not None and wanted in opened:
                    holders.append(process.pid)
    return found


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Returns device and inode of a file; None if it is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
