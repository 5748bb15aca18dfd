"""Locks that a killed process leaves in PyTorch's folder of compiled extensions, for which the next one waits for ever.

`torch.utils.cpp_extension` marks an extension that is being built or loaded by a file `lock` beside it, which the
process that made it holds open. DeepSpeed loads its extensions so, on CPUs also one for communication.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil


def remove_dead_locks(folder: Path | None = None) -> list[Path]:
    """Removes the locks that no living process holds open; returns them.

    Args:
        folder: of the extensions; None: the one that PyTorch takes.
    """
    locks = list((folder or _extensions_folder()).glob("**/lock"))
    held = set(_open_files()) if locks else set()
    dead = [lock for lock in locks if str(lock.resolve()) not in held]
    for lock in dead:
        lock.unlink(missing_ok=True)
    return dead


def _extensions_folder() -> Path:
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(named) if named else Path.home() / ".cache" / "torch_extensions"


def _open_files() -> Iterator[str]:
    """Yields the files that processes of this user hold open."""
    for process in psutil.process_iter():
        try:
            yield from (file.path for file in process.open_files())
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
