"""Rows of files, read one by one: JSON lines, JSON arrays, gzip, parquet; every fault names file and line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erulab.data.json_array import read_array
from erulab.data.text_files import lines
from erulab.errors import DataError

# First what the package `datasets` uploads: older copies in other formats may lie beside it.
SUFFIXES = ("-00000-of-00001.parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
TEXTS = 'str or {"text": str}'
PARQUET_ROWS = 1024  # read at once


@dataclass(frozen=True)
class Record:
    """One object of a file, and where it stands ("forget.jsonl:3")."""

    where: str
    fields: dict[str, Any]

    def text(self, field: str, schema: str) -> str:
        """A field that must hold text.

        Raises:
            DataError: missing, of another type, blank, or holding half a surrogate pair.
        """
        if field not in self.fields:
            raise DataError(f"{self.where}: field {field!r} is missing; expected {schema}")
        return self._checked(field, self.fields[field], schema)

    def optional_text(self, field: str, schema: str) -> str | None:
        """As `text`; None where the field is absent or null."""
        return None if self.fields.get(field) is None else self.text(field, schema)

    def texts(self, field: str, schema: str) -> tuple[str, ...]:
        """A field that must hold a list of texts; empty where it is absent or null."""
        values = self.fields.get(field)
        if values is None:
            return ()
        if not isinstance(values, list):
            raise DataError(f"{self.where}: field {field!r} must be a list of str, got {_kind(values)}; {schema}")
        return tuple(self._checked(f"{field}[{i}]", value, schema) for i, value in enumerate(values))

    def inner(self, field: str, schema: str) -> Record:
        """A field that must hold an object."""
        return self._object(field, self.fields.get(field), schema)

    def inners(self, field: str, schema: str) -> list[Record]:
        """A field that must hold a list of objects."""
        values = self.fields.get(field)
        if not isinstance(values, list):
            raise DataError(f"{self.where}: field {field!r} must be a list, got {_kind(values)}; expected {schema}")
        return [self._object(f"{field}[{i}]", value, schema) for i, value in enumerate(values)]

    def _object(self, field: str, value: Any, schema: str) -> Record:
        if not isinstance(value, dict):
            raise DataError(f"{self.where}: field {field!r} must be an object, got {_kind(value)}; expected {schema}")
        return Record(self.where, value)

    def _checked(self, field: str, value: Any, schema: str) -> str:
        if not isinstance(value, str):
            raise DataError(f"{self.where}: field {field!r} must be str, got {_kind(value)}; expected {schema}")
        if not value.strip():
            raise DataError(f"{self.where}: field {field!r} is empty; expected {schema}")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            half = value[error.start].encode("unicode_escape").decode()
            raise DataError(
                f"{self.where}: field {field!r} holds half a surrogate pair ({half}) at character {error.start}; "
                "write the text again as UTF-8"
            ) from error
        return value


def find_table(folder: Path, name: str) -> Path | None:
    """The file (or folder of parquet files) that holds a table, whatever its format."""
    file = find_file(folder, name)
    if file is None and any((folder / name).glob("*.parquet")):
        return folder / name
    return file


def find_file(folder: Path, name: str) -> Path | None:
    """The one file that holds a table, whatever its format."""
    return next((file for suffix in SUFFIXES if (file := folder / f"{name}{suffix}").is_file()), None)


def find_split(folder: Path, config: str, split: str) -> tuple[Path, ...]:
    """A split's files as the hub lays them out: `<config>/<split>-00000-of-00001.parquet` and its like, or the table
    `<config>/<split>`; empty where there are none."""
    pieces = tuple(sorted((folder / config).glob(f"{split}-*.parquet")))
    table = find_table(folder / config, split)
    return pieces or (() if table is None else (table,))


def read_records(source: Path, schema: str, bare: str | None = None) -> Iterator[Record]:
    """The objects of a file, one after another: one a line, or one JSON array, gzipped or not; or of parquet files.

    Args:
        schema: what a row must look like, for messages.
        bare: a string in place of an object is this field of one.
    Raises:
        DataError: unreadable, empty, no JSON, or something other than objects; with file and line.
    """
    if source.is_dir() or source.suffix == ".parquet":
        records = _parquet(source)
    else:
        values = read_array(source, schema) if _first_character(source) == "[" else _lines_of_json(source, schema)
        records = (_record(where, value, schema, bare) for where, value in values)
    number = 0
    for number, record in enumerate(records, start=1):  # noqa: B007
        yield record
    if not number:
        raise DataError(f"{source}: the file is empty (0 rows); expected {schema}")


def read_texts(source: Path) -> Iterator[str]:
    """Whole texts, a blank one as "": strings or objects with `text`, as `read_records` reads; a .txt is one text.

    Raises:
        DataError: as `read_records`.
    """
    if source.suffix == ".txt":
        yield "".join(line for _, line in lines(source))
        return
    for record in read_records(source, TEXTS, bare="text"):
        value = record.fields.get("text")
        blank = isinstance(value, str) and not value.strip()
        yield "" if blank else record.text("text", TEXTS)


def read_paragraphs(file: Path) -> Iterator[Record]:
    """The texts of a plain text file, parted by blank lines, each a record of the one field "text".

    Raises:
        DataError: unreadable or empty.
    """
    paragraph: list[str] = []
    first = found = 0
    for number, line in itertools.chain(lines(file), [(0, "")]):
        if line.strip():
            first = first if paragraph else number
            paragraph.append(line.rstrip("\r\n"))
        elif paragraph:
            found += 1
            yield Record(f"{file}:{first}", {"text": "\n".join(paragraph)})
            paragraph = []
    if not found:
        raise DataError(f"{file}: the file is empty; expected texts with blank lines between them")


def read_text_lines(file: Path) -> tuple[str, ...]:
    """The lines of a plain text file that are not blank.

    Raises:
        DataError: unreadable or empty.
    """
    texts = tuple(line.strip() for _, line in lines(file) if line.strip())
    if not texts:
        raise DataError(f"{file}: the file is empty; expected one text a line")
    return texts


def _first_character(file: Path) -> str:
    """The first one that is not blank; "" where there is none."""
    return next((line.lstrip()[0] for _, line in lines(file) if line.strip()), "")


def _lines_of_json(file: Path, schema: str) -> Iterator[tuple[str, Any]]:
    for number, line in lines(file):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as error:
                raise DataError(f"{file}:{number}: no valid JSON ({error}); expected one {schema} a line") from error
            yield f"{file}:{number}", value


def _parquet(source: Path) -> Iterator[Record]:
    import pyarrow  # loads slowly, and few data sets need it
    import pyarrow.parquet

    for file in sorted(source.glob("*.parquet")) if source.is_dir() else [source]:
        try:
            batches = pyarrow.parquet.ParquetFile(file).iter_batches(PARQUET_ROWS)
            for number, row in enumerate((row for batch in batches for row in batch.to_pylist()), start=1):
                yield Record(f"{file} row {number}", row)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{file}: cannot be read as parquet ({str(error).splitlines()[0]})") from error


def _record(where: str, value: Any, schema: str, bare: str | None) -> Record:
    if bare is not None and isinstance(value, str):
        value = {bare: value}
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected {schema}, got {_kind(value)}")
    return Record(where, value)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
