"""Rows of files, read one by one: JSON lines, JSON arrays, gzip, parquet; every fault names file and line."""

from __future__ import annotations

import codecs
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from erulab.errors import DataError

# First what the package `datasets` uploads: older copies in other formats may lie beside it.
SUFFIXES = ("-00000-of-00001.parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
TEXTS = 'str or {"text": str}'
BLANKS = re.compile(r"[ \t\r\n]*")
# What is read of a file at once: bytes of a JSON array, rows of a parquet file.
WINDOW, PARQUET_ROWS = 1 << 20, 1024


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
        values = _array(source, schema) if _first_character(source) == "[" else _lines_of_json(source, schema)
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
        yield "".join(line for _, line in _lines(source))
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
    lines: list[str] = []
    first = found = 0
    for number, line in itertools.chain(_lines(file), [(0, "")]):
        if line.strip():
            first = first if lines else number
            lines.append(line.rstrip("\r\n"))
        elif lines:
            found += 1
            yield Record(f"{file}:{first}", {"text": "\n".join(lines)})
            lines = []
    if not found:
        raise DataError(f"{file}: the file is empty; expected texts with blank lines between them")


def read_text_lines(file: Path) -> tuple[str, ...]:
    """The lines of a plain text file that are not blank.

    Raises:
        DataError: unreadable or empty.
    """
    lines = tuple(line.strip() for _, line in _lines(file) if line.strip())
    if not lines:
        raise DataError(f"{file}: the file is empty; expected one text a line")
    return lines


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    try:
        reads: Any = gzip.open if file.suffix == ".gz" else open
        with reads(file, "rb") as content:
            yield content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file}: the gzip file is truncated or damaged ({error}); fetch or write it again") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of a UTF-8 file."""
    with _opened(file) as content:
        # Not text mode: it would cut a text at characters such as U+2028, which JSON allows.
        for number, line in enumerate(content, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _no_utf8(file, number, error) from error


def _no_utf8(file: Path, line: int, error: UnicodeDecodeError) -> DataError:
    bad = error.object[error.start]
    return DataError(f"{file}:{line}: byte 0x{bad:02x} is no valid UTF-8; convert the file: iconv -f latin1 -t utf-8")


def _first_character(file: Path) -> str:
    """The first one that is not blank; "" where there is none."""
    return next((line.lstrip()[0] for _, line in _lines(file) if line.strip()), "")


def _lines_of_json(file: Path, schema: str) -> Iterator[tuple[str, Any]]:
    for number, line in _lines(file):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as error:
                raise DataError(f"{file}:{number}: no valid JSON ({error}); expected one {schema} a line") from error
            yield f"{file}:{number}", value


def _array(file: Path, schema: str) -> Iterator[tuple[str, Any]]:
    with _opened(file) as content:
        text = _Window(file, content)
        text.next_character()
        text.advance(1)
        while text.next_character() != "]":
            where = f"{file}:{text.line}"
            yield where, text.value(where, schema)
            if text.next_character() == ",":
                text.advance(1)
                if text.next_character() == "]":
                    raise DataError(f"{file}:{text.line}: a comma before the closing ]; remove it")
            elif text.next_character() != "]":
                raise DataError(
                    f"{file}:{text.line}: the array is not closed or lacks a comma; expected an array of {schema}"
                )
        text.advance(1)
        if text.next_character():
            raise DataError(f"{file}:{text.line}: something follows the array; expected one array of {schema}, no more")


class _Window:
    """The part of a JSON file that is being parsed: grows on demand, and forgets what lies behind."""

    def __init__(self, file: Path, content: IO[bytes]) -> None:
        self.line = 1
        self._file, self._content = file, content
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text, self._position = "", 0

    def next_character(self) -> str:
        """The next one that is not blank, reading on to it; "" at the end of the file."""
        while True:
            self.advance(len(BLANKS.match(self._text, self._position)[0]))  # type: ignore[index]
            if self._position < len(self._text) or not self._more():
                return self._text[self._position : self._position + 1]

    def advance(self, characters: int) -> None:
        self.line += self._text.count("\n", self._position, self._position + characters)
        self._position += characters

    def value(self, where: str, schema: str) -> Any:
        """The JSON value that begins here.

        Raises:
            DataError: it is none, or the file ends in it.
        """
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise DataError(f"{where}: no valid JSON ({error.msg}); expected an array of {schema}") from error
            else:
                self.advance(end - self._position)
                return value

    def _more(self) -> bool:
        """Reads on, as much again as there is: a long value is not parsed too often."""
        self._text, self._position = self._text[self._position :], 0
        read = self._content.read(max(WINDOW, len(self._text)))
        try:
            self._text += self._decoder.decode(read, final=not read)
        except UnicodeDecodeError as error:
            line = self.line + self._text.count("\n") + error.object.count(b"\n", 0, error.start)
            raise _no_utf8(self._file, line, error) from error
        return bool(read)


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


def _record(where: str, value: Any, schema: str, bare: str | None = None) -> Record:
    if bare is not None and isinstance(value, str):
        value = {bare: value}
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected {schema}, got {_kind(value)}")
    return Record(where, value)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
