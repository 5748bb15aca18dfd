"""Rows of files: JSON lines, JSON arrays, gzip, parquet; every fault names file and line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erulab.errors import DataError

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")


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
    for suffix in SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    return folder / name if any((folder / name).glob("*.parquet")) else None


def read_records(source: Path, schema: str) -> list[Record]:
    """All objects of a file: one a line, or one JSON array, gzipped or not; or of parquet files.

    Args:
        schema: what a row must look like, for messages.
    Raises:
        DataError: unreadable, empty, no JSON, or something other than objects; with file and line.
    """
    if source.is_dir() or source.suffix == ".parquet":
        records = list(_parquet(source))
    else:
        text = _decoded(source)
        records = list(_array(source, text, schema) if text.lstrip().startswith("[") else _lines(source, text, schema))
    if not records:
        raise DataError(f"{source}: the file is empty (0 rows); expected {schema}")
    return records


def read_text_lines(file: Path) -> tuple[str, ...]:
    """The lines of a plain text file that are not blank.

    Raises:
        DataError: unreadable or empty.
    """
    lines = tuple(line.strip() for line in _decoded(file).split("\n") if line.strip())
    if not lines:
        raise DataError(f"{file}: the file is empty; expected one text a line")
    return lines


def _decoded(file: Path) -> str:
    try:
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file}: the gzip file is truncated or damaged ({error}); fetch or write it again") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        bad = content[error.start]
        raise DataError(
            f"{file}:{line}: byte 0x{bad:02x} is no valid UTF-8; convert the file: iconv -f latin1 -t utf-8"
        ) from error


def _lines(file: Path, text: str, schema: str) -> Iterator[Record]:
    # Not splitlines: it would cut a text at characters such as U+2028, which JSON allows.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as error:
                raise DataError(f"{file}:{number}: no valid JSON ({error}); expected one {schema} a line") from error
            yield _record(f"{file}:{number}", value, schema)


def _array(file: Path, text: str, schema: str) -> Iterator[Record]:
    decoder = json.JSONDecoder()
    position = _after_blanks(text, text.index("[") + 1)
    while text[position : position + 1] != "]":
        line = text.count("\n", 0, position) + 1
        try:
            value, position = decoder.raw_decode(text, position)
        except ValueError as error:
            raise DataError(f"{file}:{line}: no valid JSON ({error}); expected an array of {schema}") from error
        yield _record(f"{file}:{line}", value, schema)
        position = _after_blanks(text, position)
        if text[position : position + 1] == ",":
            position = _after_blanks(text, position + 1)
        elif text[position : position + 1] != "]":
            line = text.count("\n", 0, position) + 1
            raise DataError(f"{file}:{line}: the array is not closed or lacks a comma; expected an array of {schema}")


def _after_blanks(text: str, position: int) -> int:
    return len(text) - len(text[position:].lstrip(" \t\r\n"))


def _parquet(source: Path) -> Iterator[Record]:
    import pyarrow  # loads slowly, and few data sets need it
    import pyarrow.parquet

    for file in sorted(source.glob("*.parquet")) if source.is_dir() else [source]:
        try:
            rows = pyarrow.parquet.read_table(file).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{file}: cannot be read as parquet ({str(error).splitlines()[0]})") from error
        yield from (Record(f"{file} row {number}", row) for number, row in enumerate(rows, start=1))


def _record(where: str, value: Any, schema: str) -> Record:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected {schema}, got {_kind(value)}")
    return Record(where, value)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
