"""Tables of many rows: columns in Arrow's format and a fixed-size record of each row, in memory-mapped files.

Arrow is used as it is, not through `datasets`: that takes four times as long to import, and the rows of a batch are
read one by one, where its formatting would take most of the time.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import json
import logging
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lazy_loader

from erulab.errors import EnvironmentFault

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
else:
    np = lazy_loader.load("numpy")
    pyarrow = lazy_loader.load("pyarrow")

log = logging.getLogger(__name__)

COLUMNS, MARKS, MANIFEST = "columns.arrow", "marks.bin", "manifest.json"
# A batch is what is in memory while a table is written. Few of them, too: each costs some memory when it is read.
BATCH_ROWS, BATCH_SIZE = 4096, 1 << 24  # rows; characters or ids

# Values of a row's columns (texts, lists, None), and of its mark.
Entry = tuple[tuple[Any, ...], tuple[Any, ...]]
# Yields a table's entries; what it leaves in the dict is kept beside them.
Make = Callable[[dict[str, Any]], Iterable[Entry]]


@dataclass(frozen=True)
class Layout:
    """Arrow types of a table's columns, by name, and numpy types of its marks; given as text: both load slowly."""

    columns: dict[str, str]  # "string" or "int32"; in brackets for a list of them
    marks: tuple[tuple[str, str], ...]

    def schema(self) -> pyarrow.Schema:
        types = {"string": pyarrow.string(), "int32": pyarrow.int32()}
        return pyarrow.schema(
            [
                (name, pyarrow.list_(types[kind[1:-1]]) if kind.startswith("[") else types[kind])
                for name, kind in self.columns.items()
            ]
        )

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(list(self.marks))


class Table:
    """Rows of Arrow batches, in memory or mapped; any number of threads may read it."""

    def __init__(self, batches: list[pyarrow.RecordBatch], marks: np.ndarray[Any, Any], extra: dict[str, Any]) -> None:
        self.marks, self.extra = marks, extra
        self._columns = [batch.columns for batch in batches]
        self._starts = [0, *itertools.accumulate(len(batch) for batch in batches)]

    def __len__(self) -> int:
        return len(self.marks)

    def locate(self, index: int) -> tuple[list[pyarrow.Array], int]:
        """The columns of the batch that holds row `index`, and its place in them."""
        batch = bisect.bisect_right(self._starts, index) - 1
        return self._columns[batch], index - self._starts[batch]

    def pieces(self, rows: int = 512) -> Iterator[list[pyarrow.Array]]:
        """All columns, `rows` at a time."""
        for columns, first, last in zip(self._columns, self._starts, self._starts[1:], strict=False):
            for start in range(0, last - first, rows):
                yield [column.slice(start, rows) for column in columns]


def collected(layout: Layout, make: Make) -> Table:
    """A table in memory."""
    extra: dict[str, Any] = {}
    batches, marks = [], [np.empty(0, layout.dtype())]
    for batch, batch_marks in _batches(layout, make(extra)):
        batches.append(batch)
        marks.append(batch_marks)
    return Table(batches, np.concatenate(marks), extra)


def stored(folder: Path, layout: Layout, make: Make) -> Table:
    """The table kept in `folder`, made first unless it is there whole. Processes that need it at once make it once.

    Raises:
        EnvironmentFault: the folder cannot be written. Whatever `make` raises leaves nothing behind.
    """
    from filelock import FileLock  # the default run stores no tables

    table = _opened(folder, layout)
    if table is not None:
        return table
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            table = _opened(folder, layout)
            if table is None:
                if folder.is_dir():
                    log.warning("the table in %s is damaged: it is made again", folder)
                _write(folder, layout, make)
                table = _opened(folder, layout)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot keep the data set's tables in {folder.parent} ({error.strerror or error}); type cache=FOLDER"
        ) from error
    if table is None:
        raise EnvironmentFault(f"{folder} cannot be read back as it was written; check the disk, or type cache=FOLDER")
    return table


def _write(folder: Path, layout: Layout, make: Make) -> None:
    working = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, working, ignore_errors=True)
        extra: dict[str, Any] = {}
        rows = 0
        with (
            (working / MARKS).open("wb") as marks_file,
            pyarrow.OSFile(str(working / COLUMNS), "wb") as sink,
            pyarrow.ipc.new_file(sink, layout.schema()) as writer,
        ):
            for batch, marks in _batches(layout, make(extra)):
                writer.write_batch(batch)
                marks_file.write(marks.tobytes())
                rows += len(marks)
        sums = {name: _checksum(working / name) for name in (COLUMNS, MARKS)}
        content = json.dumps({"rows": rows, "checksums": sums, "extra": extra})
        (working / MANIFEST).write_text(f"{zlib.crc32(content.encode())}\n{content}", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        working.rename(folder)


def _opened(folder: Path, layout: Layout) -> Table | None:
    """The finished table, or None where there is none or it is damaged."""
    try:
        checksum, _, content = (folder / MANIFEST).read_text(encoding="utf-8").partition("\n")
        if checksum != str(zlib.crc32(content.encode())):
            raise ValueError(MANIFEST)
        manifest = json.loads(content)
        for name, known in manifest["checksums"].items():
            if _checksum(folder / name) != known:
                raise ValueError(name)
    except (OSError, ValueError):
        return None
    if manifest["rows"] == 0:
        return Table([], np.empty(0, layout.dtype()), manifest["extra"])
    batches = pyarrow.ipc.open_file(pyarrow.memory_map(str(folder / COLUMNS))).read_all().to_batches()
    return Table(batches, np.memmap(folder / MARKS, layout.dtype(), mode="r"), manifest["extra"])


def _batches(layout: Layout, entries: Iterable[Entry]) -> Iterator[tuple[pyarrow.RecordBatch, np.ndarray[Any, Any]]]:
    schema, dtype = layout.schema(), layout.dtype()
    rows: list[tuple[Any, ...]] = []
    marks: list[tuple[Any, ...]] = []
    size = 0

    def made() -> tuple[pyarrow.RecordBatch, np.ndarray[Any, Any]]:
        columns = zip(*rows, strict=True)
        arrays = [pyarrow.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        return pyarrow.record_batch(arrays, schema=schema), np.array(marks, dtype)

    for values, mark in entries:
        rows.append(values)
        marks.append(mark)
        size += sum(len(value) for value in values if value is not None)
        if len(rows) == BATCH_ROWS or size >= BATCH_SIZE:
            yield made()
            rows, marks, size = [], [], 0
    if rows:
        yield made()


def _checksum(file: Path) -> int:
    """CRC-32 of a file: finds damage, at the speed of memory."""
    total = 0
    with file.open("rb") as content:
        while piece := content.read(1 << 20):
            total = zlib.crc32(piece, total)
    return total
