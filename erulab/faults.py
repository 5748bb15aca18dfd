"""Names faults of the machine: a disk that cannot be written, too little memory. Whatever library raised them.

Such a fault is never a result: an attack on a full disk has not failed, it has not been made.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from erulab.errors import EnvironmentFault, ErulabError, OutOfMemory

CONTINUES = "the same command continues from the last checkpoint"
ELSEWHERE = "name folders on another disk with output=FOLDER cache=FOLDER"
# What each fault means for a person, and what mends it.
DISK_FAULTS = {
    errno.ENOSPC: ("no space left on the disk of {where}{free}", f"make room there, or {ELSEWHERE}"),
    errno.EDQUOT: ("the disk quota is used up at {where}", f"delete files of yours there, or {ELSEWHERE}"),
    errno.EFBIG: (
        "a file would grow beyond the size that this process may write at {where}",
        f"raise the limit (ulimit -f unlimited), or {ELSEWHERE}",
    ),
    errno.EROFS: ("{where} is on a read-only file system", ELSEWHERE),
    errno.EIO: ("the disk reports an input/output error at {where}", f"check the disk, or {ELSEWHERE}"),
    errno.ESTALE: ("the network file system has lost {where}", f"mount it again, or {ELSEWHERE}"),
    errno.EACCES: ("this user may not read or write {where}", "change its permissions, or name another folder"),
    errno.EPERM: ("this user may not change {where}", "change its permissions, or name another folder"),
    errno.ENOTDIR: ("{where} is below a file, or is one, where a folder is needed", "name a folder"),
    errno.EISDIR: ("{where} is a folder where a file is needed", "name another one"),
    errno.EEXIST: ("{where} is a file where a folder is needed", "name a folder"),
    errno.ENAMETOOLONG: ("{where} has a name that is too long", "name a shorter one"),
    errno.ENOENT: ("{where} cannot be made", "name a folder on a disk"),
    errno.EMFILE: ("too many files are open in this process", "raise the limit (ulimit -n 65536)"),
    errno.ENFILE: ("too many files are open on this machine", "close other programs"),
}
# Libraries in other languages keep the system's number, or only its words, in their text. In a text only words that
# nobody else writes count.
NAMED_IN_TEXT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_NUMBER_IN_TEXT = re.compile(r"\((?:os error|errno) (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
_WORDS = {"no space left on device": errno.ENOSPC, "disk quota exceeded": errno.EDQUOT}
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|ALLOC_FAILED|std::bad_alloc",
    re.IGNORECASE,
)
LONGEST_SHOWN = 80  # characters of a path
LONGEST_CAUSE = 200  # characters of an error of a library


def machine_fault(error: BaseException, folders: Sequence[Path] = ()) -> ErulabError | None:
    """Returns the error as one line with its exit code if the machine is at fault; None for any other error.

    Args:
        error: an exception of any library; its causes are looked at too.
        folders: those that the run writes to, for errors that name no path: the one with least space is named.
    """
    if lacks_memory(error):
        return OutOfMemory(f"out of memory{said_by_allocator(error)}; close other programs, or use a machine with more")
    return disk_fault(error, folders)


def disk_fault(error: BaseException, folders: Sequence[Path] = ()) -> EnvironmentFault | None:
    """As `machine_fault`, for disks and files alone."""
    for one in _causes(error):
        number, path = _disk_error(one)
        if number is None:
            continue
        if path is None and folders:
            path = str(_fullest(folders))
        where = "a file that was to be written" if path is None else _shortened(str(path))
        free = "" if path is None else f" ({free_bytes(Path(path)) / 1e6:.3g} MB are free)"
        what, mend = DISK_FAULTS[number]
        return EnvironmentFault(f"{what.format(where=where, free=free)}; {mend}")
    return None


def lacks_memory(error: BaseException) -> bool:
    """Tells whether an error, or one of its causes, says that memory could not be had: in host memory or on a GPU."""
    return any(
        isinstance(one, MemoryError)
        or (isinstance(one, OSError) and one.errno == errno.ENOMEM)
        or (not isinstance(one, ErulabError) and _NO_MEMORY.search(str(one)) is not None)
        for one in _causes(error)
    )


def said_by_allocator(error: BaseException) -> str:
    """Returns what the allocator says, such as the bytes that it was asked for; "" if it says nothing."""
    lines = str(error).strip().splitlines()
    return f" ({lines[0]})" if lines else ""


def cause_of(error: BaseException) -> str:
    """Returns the first line of an error's text, with the type where the text alone says little."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # transformers' validation names the field in its first line and the cause in the second.
    line = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])[:LONGEST_CAUSE]
    if not line:
        return type(error).__name__
    return f"{type(error).__name__} {line}" if isinstance(error, KeyError | IndexError | AttributeError) else line


@contextlib.contextmanager
def machine_faults_named(*folders: Path) -> Iterator[None]:
    """Turns errors of the machine within the block into one line with an exit code; others pass unchanged.

    Args:
        folders: as for `machine_fault`.
    Raises:
        EnvironmentFault, OutOfMemory: in place of such an error.
    """
    try:
        yield
    except ErulabError:
        raise
    except Exception as error:
        fault = machine_fault(error, folders)
        if fault is None:
            raise
        raise fault from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _disk_error(error: BaseException) -> tuple[int | None, str | None]:
    """Returns the number in DISK_FAULTS and the path of an error of a disk; (None, None) for any other error."""
    if isinstance(error, ErulabError):
        return None, None
    path = None
    if isinstance(error, OSError) and error.errno is not None:
        if isinstance(error.filename, str | bytes | Path):
            path = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else str(error.filename)
        if error.errno == errno.EEXIST and (path is None or Path(path).is_dir()):
            return None, None  # no wrong path, but two that make the same folder
        if error.errno in DISK_FAULTS and not (error.errno == errno.ENOENT and not _makes_folder(error)):
            return error.errno, path
        return None, None
    text = str(error)
    found = _NUMBER_IN_TEXT.search(text)
    number = int(found[1] or found[2]) if found else next((n for w, n in _WORDS.items() if w in text.lower()), None)
    return (number, path) if number in NAMED_IN_TEXT else (None, None)


def _makes_folder(error: OSError) -> bool:
    """Tells whether a folder was being made: a file that is missing where it is read is another fault."""
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1] in ("mkdir", "makedirs")


def _fullest(folders: Sequence[Path]) -> Path:
    """Returns the folder on the disk with least space; the first of those on one disk."""
    by_disk: dict[int, Path] = {}
    for folder in folders:
        found = next((one for one in (folder, *folder.parents) if one.exists()), Path())
        by_disk.setdefault(found.stat().st_dev, folder)
    return min(by_disk.values(), key=free_bytes)


def free_bytes(path: Path) -> int:
    """Returns the bytes that are free where a path is, or would be."""
    for folder in (path, *path.parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return 0


def _shortened(path: str) -> str:
    return path if len(path) <= LONGEST_SHOWN else f"{path[:LONGEST_SHOWN]}..."
