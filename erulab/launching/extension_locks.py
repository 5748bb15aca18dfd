"""Locks that a killed process leaves in PyTorch's folder of compiled extensions, for which the next one waits for ever.

`torch.utils.cpp_extension` marks an extension that is being built or loaded by a file `lock` beside it, which the
process that made it holds open. DeepSpeed loads its extensions so, on CPUs also one for communication.
"""

from __future__ import annotations

import os
from pathlib import Path

from erulab.open_files import processes_that_hold


def remove_dead_locks(folder: Path | None = None) -> list[Path]:
    """Removes the locks that no living process holds open; returns them.

    Args:
        folder: of the extensions; None: the one that PyTorch takes.
    """
    locks = (folder or _extensions_folder()).glob("**/lock")
    dead = [lock for lock in locks if not processes_that_hold(lock)]
    for lock in dead:
        lock.unlink(missing_ok=True)
    return dead


def _extensions_folder() -> Path:
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(named) if named else Path.home() / ".cache" / "torch_extensions"
