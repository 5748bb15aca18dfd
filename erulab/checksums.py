"""SHA-256 of the files that are kept: computed once per process, compared before a file is believed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from erulab.errors import Damaged

ENTRY = "entry.json"  # in a product's folder: its key, and the SHA-256 of its files
# Larger files are weights: reading them takes as long as loading them, so `checked_meanwhile` does both at once.
SMALL_BYTES = 16 << 20


_known: dict[tuple[int, int, int, int], str] = {}


def hash_file(file: Path) -> str:
    """Returns the SHA-256 of a file as 64 hex digits; reads an unchanged file, and its hard links, once per process."""
    status = file.stat()
    content = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    if content not in _known:
        with file.open("rb") as stream:
            _known[content] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _known[content]


def hash_json(value: Any) -> str:
    """Returns the SHA-256 of a plain value as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hash_files(folder: Path, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Returns the SHA-256 of every file below a folder, by its path in the folder.

    Args:
        without: names of files and folders directly in it that are left out.
    """
    return {str(file.relative_to(folder)): hash_file(file) for file in _files(folder, without)}


def find_fault(
    folder: Path, wanted: Mapping[str, str], *, without: tuple[str, ...] = (), small_only: bool = False
) -> str | None:
    """Compares the files below a folder with what they were when they were written.

    Args:
        wanted: path in the folder -> SHA-256.
        without: names of files and folders directly in it that may be there besides.
        small_only: compare only the names of files above SMALL_BYTES.
    Returns:
        What is wrong, such as "model/config.json is damaged"; None if every file is there, unchanged and alone.
    """
    there = {str(file.relative_to(folder)) for file in _files(folder, without)}
    for name, digest in wanted.items():
        file = folder / name
        if name not in there:
            return f"{name} is missing"
        if not (small_only and file.stat().st_size > SMALL_BYTES) and hash_file(file) != digest:
            return f"{name} is damaged (its SHA-256 is another)"
    unknown = sorted(there - wanted.keys())
    return f"{unknown[0]} does not belong to it" if unknown else None


@contextlib.contextmanager
def checked_meanwhile(check: Callable[[], None]) -> Iterator[None]:
    """Runs a check in a second thread while the block runs; what the check raises is raised when the block ends.

    An error of the block comes second: a file that is damaged is often one that cannot be read either.
    """
    raised: list[Exception] = []

    def run() -> None:
        try:
            check()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="checksums", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        if raised:
            raise raised[0] from None


def check_model(folder: Path, key: str) -> None:
    """Compares a model that erulab made with what its product's entry says; other models have no such entry.

    Args:
        folder: of the model, in the product's folder.
        key: of the product.
    Raises:
        Damaged: a file was changed since it was written. The product's entry is removed, so that it is made again.
    """
    product = folder.parent
    try:
        entry = json.loads((product / ENTRY).read_text(encoding="utf-8"))
        if entry["key"] != key:
            return
        files = {Path(name): digest for name, digest in entry["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # a folder that is no product
        return
    of_model = {name.name: digest for name, digest in files.items() if name.parent.name == folder.name}
    fault = find_fault(folder, of_model)
    if fault is not None:
        (product / ENTRY).unlink(missing_ok=True)
        raise Damaged(f"{folder}/{fault}; it is made again")


def _files(folder: Path, without: tuple[str, ...]) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.relative_to(folder).parts[0] not in without:
            yield file
