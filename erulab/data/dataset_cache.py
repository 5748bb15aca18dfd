"""Datasets of Hugging Face's `datasets` in the cache folder, under a content key: made once, checked when opened."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lazy_loader

from erulab.errors import EnvironmentFault

if TYPE_CHECKING:
    import datasets
    import pyarrow
else:
    datasets = lazy_loader.load("datasets")  # takes 0.7 s: only a run that reads rows loads it
    pyarrow = lazy_loader.load("pyarrow")

log = logging.getLogger(__name__)

ROWS_FILE, MANIFEST = "rows.arrow", "manifest.json"
Notes = dict[str, Any]  # plain JSON values that a reader keeps beside its rows


def open_dataset(folder: Path, make: Callable[[Path, Notes], None]) -> tuple[datasets.Dataset, Notes]:
    """Returns the memory-mapped dataset of a folder and its notes; makes the folder if it is missing or damaged.

    Processes that need the same folder at once make it once. A run that is killed leaves no half-written folder.

    Args:
        folder: named by a hash of everything the dataset depends on.
        make: writes the Arrow file it is given, and may fill the notes.
    Raises:
        EnvironmentFault: the folder cannot be written. Errors of `make` pass through and leave no folder.
    """
    from filelock import FileLock  # the default run keeps no datasets

    found = _read_folder(folder)
    if found is not None:
        return found
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            found = _read_folder(folder)
            if found is None:
                if folder.is_dir():
                    log.warning("the dataset in %s is damaged: it is made again", folder)
                _write_folder(folder, make)
                found = _read_folder(folder)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot keep the data set's rows in {folder.parent} ({error.strerror or error}); type cache=FOLDER"
        ) from error
    if found is None:
        raise EnvironmentFault(f"{folder} cannot be read back as it was written; check the disk, or type cache=FOLDER")
    return found


def write_tables(file: Path, schema: pyarrow.Schema, tables: Iterable[pyarrow.Table]) -> None:
    """Writes an Arrow file that `datasets` can map into memory, one record batch per table."""
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
        for table in tables:
            writer.write_table(table)


def _write_folder(folder: Path, make: Callable[[Path, Notes], None]) -> None:
    working = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, working, ignore_errors=True)
        notes: Notes = {}
        make(working / ROWS_FILE, notes)
        content = json.dumps({"checksum": _checksum(working / ROWS_FILE), "notes": notes})
        (working / MANIFEST).write_text(f"{zlib.crc32(content.encode())}\n{content}", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        working.rename(folder)


def _read_folder(folder: Path) -> tuple[datasets.Dataset, Notes] | None:
    """Opens a finished folder; None where there is none, or where a checksum does not match."""
    try:
        checksum, _, content = (folder / MANIFEST).read_text(encoding="utf-8").partition("\n")
        if checksum != str(zlib.crc32(content.encode())):
            return None
        manifest = json.loads(content)
        if _checksum(folder / ROWS_FILE) != manifest["checksum"]:
            return None
    except (OSError, ValueError):
        return None
    return datasets.Dataset.from_file(str(folder / ROWS_FILE)), manifest["notes"]


def _checksum(file: Path) -> int:
    """Returns a file's CRC-32, which is fast enough to be computed each time the file is opened."""
    total = 0
    with file.open("rb") as content:
        while piece := content.read(1 << 20):
            total = zlib.crc32(piece, total)
    return total
