"""Locks that a killed process leaves in PyTorch's folder of compiled extensions, for which the next one waits for ever.

`torch.utils.cpp_extension` marks an extension that is being built or loaded by a file `lock` beside it, which the
process that made it holds open. DeepSpeed loads its extensions so, on CPUs also one for communication.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil

from erulab.open_files import holders_of

# A file system that other hosts may share: a lock that nobody here holds may be theirs, so it must be older than the
# longest build.
OWN_FILE_SYSTEMS = ("apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs")
BUILD_SECONDS = 600


def remove_dead_locks(folder: Path | None = None) -> list[Path]:
    """Removes this user's locks that no living process holds open; returns them.

    Args:
        folder: of the extensions; None: the one that PyTorch takes.
    """
    folder = folder or _extensions_folder()
    ages: dict[Path, float] = {}
    for lock in folder.glob("**/lock"):
        with contextlib.suppress(FileNotFoundError):
            status = lock.stat()
            if status.st_uid == os.getuid():
                ages[lock] = time.time() - status.st_mtime
    if not ages:
        return []
    youngest = 0 if _file_system(folder) in OWN_FILE_SYSTEMS else BUILD_SECONDS
    holders = holders_of(list(ages))
    dead = [lock for lock, age in ages.items() if not holders[lock] and age >= youngest]
    for lock in dead:
        lock.unlink(missing_ok=True)
    return dead


def _extensions_folder() -> Path:
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(named) if named else Path.home() / ".cache" / "torch_extensions"


def _file_system(folder: Path) -> str:
    """Returns the type of the file system that a folder is on, as the system calls it; "" if it is not known."""
    parents = {str(one) for one in (folder.resolve(), *folder.resolve().parents)}
    mounts = [one for one in psutil.disk_partitions(all=True) if one.mountpoint in parents]
    return max(mounts, key=lambda one: len(one.mountpoint)).fstype if mounts else ""
