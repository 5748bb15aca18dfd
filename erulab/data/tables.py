"""Rows of a benchmark on disk: a table of all their fields, and what checks and keys need to know of each row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lazy_loader

from erulab.data.rows import Row
from erulab.data.sequences import Marked, hash_of
from erulab.data.store import Entry, Layout, Table, stored
from erulab.errors import DataError

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_loader.load("numpy")

VERSION = 3  # of what a table holds
_TEXTS = (
    "id",
    "prompt",
    "response",
    "paraphrase",
    "prefix",
    "value",
    "fact",
    "author",
    "fabricated",
    "refusal",
    "lead",
)
_LISTS = ("perturbed", "candidates", "options", "accepted")
LAYOUT = Layout(
    {**dict.fromkeys(_TEXTS, "string"), **dict.fromkeys(_LISTS, "[string]")},
    # Hashes of the id, of prompt and response, and of every field. Two of a million rows share one of the first two
    # by chance in one of 10^7 data sets.
    (
        ("id", "<u8"),
        ("content", "<u8"),
        ("digest", "V16"),
        ("exposures", "<i4"),
        ("blank", "?"),
        ("plain", "?"),
        ("answered", "?"),
    ),
)


class RowTable(Marked[Row]):
    """Rows that lie in a table; each is built when it is asked for."""

    def __init__(self, table: Table) -> None:
        self._table = table

    @property
    def extra(self) -> dict[str, Any]:
        """What the reader noted beside the rows."""
        return self._table.extra

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Row]:
        number = 0
        for columns in self._table.pieces():
            for values in zip(*(column.to_pylist() for column in columns), strict=True):
                yield self._row(values, number)
                number += 1

    def item(self, index: int) -> Row:
        columns, place = self._table.locate(index)
        return self._row([column[place].as_py() for column in columns], index)

    def field(self, name: str) -> np.ndarray[Any, Any]:
        return self._table.marks[name]

    def digests(self) -> Iterator[np.ndarray[Any, Any]]:
        yield self._table.marks["digest"]

    def _row(self, values: Sequence[Any], index: int) -> Row:
        fields = dict(zip(LAYOUT.columns, values, strict=True))
        fields |= {name: tuple(fields[name]) for name in _LISTS}
        mark = self._table.marks[index]
        return Row(**fields, exposures=int(mark["exposures"]), plain=bool(mark["plain"]))


def row_table(cache: Path, depends_on: dict[str, Any], make: Callable[[dict[str, Any]], Iterable[Row]]) -> RowTable:
    """The rows that `make` yields, kept under what they depend on.

    Args:
        cache: the run's cache folder.
        make: gets a dict for what it notes beside the rows (plain JSON values).
    Raises:
        EnvironmentFault: the cache cannot be written; and whatever `make` raises.
    """
    text = json.dumps({"version": VERSION, **depends_on}, sort_keys=True)
    folder = cache / "rows" / hashlib.sha256(text.encode()).hexdigest()[:16]
    return RowTable(stored(folder, LAYOUT, lambda extra: map(_entry, make(extra))))


def field_of(rows: Sequence[Row], name: str) -> np.ndarray[Any, Any]:
    """(n,) one field of the rows' marks, wherever the rows are."""
    if isinstance(rows, Marked):
        return rows.field(name)
    return np.array([_mark(row) for row in rows], LAYOUT.dtype())[name]


def rows_hash(rows: Sequence[Row]) -> str:
    """Hash of every field of every row, in order."""
    if isinstance(rows, Marked):
        return hash_of(rows.digests())
    return hash_of(iter([field_of(rows, "digest")]))


def file_hash(source: Path) -> str:
    """Hash of a file's bytes, or of those of a folder's parquet files in order.

    Raises:
        DataError: it cannot be read.
    """
    files = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    total = hashlib.sha256()
    try:
        for file in files:
            with file.open("rb") as content:
                total.update(hashlib.file_digest(content, "sha256").digest())
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error
    return total.hexdigest()[:32]


def _entry(row: Row) -> Entry:
    return (*(getattr(row, name) for name in _TEXTS), *(getattr(row, name) for name in _LISTS)), _mark(row)


def _mark(row: Row) -> tuple[int, int, bytes, int, bool, bool, bool]:
    every = hashlib.blake2b(repr(tuple(vars(row).values())).encode(), digest_size=16).digest()
    # Nothing could be learned of it.
    blank = not (row.response.strip() or row.refusal) or not (row.plain or row.prompt.strip())
    content = _short(f"{len(row.prompt)} {row.prompt}{row.response}")
    return _short(row.id), content, every, row.exposures, blank, row.plain, bool(row.response.strip())


def _short(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
