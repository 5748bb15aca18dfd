"""FAULTS 22: a killed process leaves a lock for which every later run on DeepSpeed would wait without end."""

from __future__ import annotations

from pathlib import Path

from torch.utils.file_baton import FileBaton

from erulab.launching.extension_locks import remove_dead_locks


def test_only_locks_that_nobody_holds_are_removed(tmp_path: Path) -> None:
    """PyTorch's own lock, held by this process, and one whose process is gone."""
    living, dead = tmp_path / "py311_cpu" / "living", tmp_path / "py311_cpu" / "dead"
    for folder in (living, dead):
        folder.mkdir(parents=True)
    (dead / "lock").touch()
    baton = FileBaton(str(living / "lock"))
    assert baton.try_acquire()
    assert remove_dead_locks(tmp_path) == [dead / "lock"]
    assert (living / "lock").exists() and not (dead / "lock").exists()
    baton.release()
    assert remove_dead_locks(tmp_path) == []
