"""Full disks, read-only folders and a file in the place of the cache: exit 4 with its name, and room mends it."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.reliability.commands import Ended, typed
from tests.reliability.damages import Base
from tests.reliability.trials import Trial
from tests.reliability.world import litter, outcome, overrides

OPTIONS = ("trainer.save_every=2",)
# A run in the smallest world keeps about 1 MB.
TMPFS_KILOBYTES = (24, 160, 500)
ENVIRONMENT = 4


def trials(base: Base, count: int | None = None) -> Iterator[Trial]:
    """Yields a trial for each size of the disk, and for what else cannot be written.

    Args:
        base: whose finished run an undisturbed run must equal.
        count: how many; None: all.
    """
    read_only = Trial("disks", "read-only", lambda folder: _read_only(folder))
    every = [
        Trial("disks", "cache= is a file", lambda folder: _cache_is_file(folder)),
        _small(base, TMPFS_KILOBYTES[1]),
        *([read_only] if _can_mount() or os.getuid() != 0 else []),  # root may write to a folder without permission
        _small(base, TMPFS_KILOBYTES[0]),
        _small(base, TMPFS_KILOBYTES[2]),
        Trial("disks", "files of at most 12 KB", lambda folder: _short_files(base, folder, 12 << 10)),
    ]
    yield from every[:count]


def _small(base: Base, kilobytes: int) -> Trial:
    """Returns a trial on a disk of this size; where none can be mounted, with files of an eighth of it."""
    if _can_mount():
        return Trial("disks", f"tmpfs of {kilobytes} KB", lambda folder: _full(base, folder, kilobytes))
    most = kilobytes << 7
    return Trial("disks", f"files of at most {most} bytes", lambda folder: _short_files(base, folder, most))


def _full(base: Base, folder: Path, kilobytes: int) -> str | None:
    """Runs on a tmpfs of this size, then gives it room."""
    cache = folder / "cache"
    cache.mkdir()
    options = overrides(folder / "o", *OPTIONS, f"cache={cache}")
    _mount(cache, kilobytes)
    try:
        fault = _judge(typed(options), cache, "tmpfs", str(cache))
        subprocess.run(["mount", "-o", "remount,size=64m", str(cache)], check=True)
        return fault or _continues(base, folder, options)
    finally:
        subprocess.run(["umount", "-l", str(cache)], check=False)


def _short_files(base: Base, folder: Path, most: int) -> str | None:
    """Runs while no file may grow beyond `most` bytes, then without that limit."""
    options = overrides(folder / "o", *OPTIONS)
    return _judge(typed(options, files=most), folder / "o", "limit") or _continues(base, folder, options)


def _read_only(folder: Path) -> str | None:
    cache = folder / "cache"
    cache.mkdir()
    if _can_mount():
        _mount(cache, 1024)
        subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
    else:
        cache.chmod(0o500)
    try:
        return _judge(typed(overrides(folder / "o", f"cache={cache}")), cache, "read-only", str(cache))
    finally:
        if _can_mount():
            subprocess.run(["umount", "-l", str(cache)], check=False)


def _cache_is_file(folder: Path) -> str | None:
    cache = folder / "cache"
    cache.write_text("not a folder")
    return _judge(typed(overrides(folder / "o", f"cache={cache}")), folder / "o", "file", str(cache))


@functools.cache
def _can_mount() -> bool:
    """Mounts a tmpfs once to see whether this user may."""
    with TemporaryDirectory(prefix="reliability-") as folder:
        try:
            _mount(Path(folder), 16)
        except (OSError, subprocess.CalledProcessError):
            return False
        subprocess.run(["umount", "-l", folder], check=True)
    return True


def _mount(folder: Path, kilobytes: int) -> None:
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder]
    subprocess.run(command, capture_output=True, check=True)


def _judge(ended: Ended, written: Path, what: str, named: str | None = None) -> str | None:
    if ended.fault is not None:
        return f"{what}: {ended.fault}"
    if ended.code != ENVIRONMENT:
        return f"{what}: exit {ended.code}, not {ENVIRONMENT}: {ended.last_line}"
    if named is not None and named not in ended.said:
        return f"{what}: {named} is not named: {ended.last_line}"
    left = [name for name in litter(written) if not name.endswith(".partial")]  # those hold the last checkpoint
    return f"{what}: litter: {left[0]}" if left else None


def _continues(base: Base, folder: Path, options: list[str]) -> str | None:
    ended = typed(options)
    if ended.code != 0:
        return f"with room the same command ends with {ended.code}: {ended.last_line}"
    return outcome(folder / "o").difference(base.whole)
