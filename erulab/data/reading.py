"""Records of files, read one by one: JSON lines, JSON arrays, csv, gzip, parquet; every error names file and line."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erulab.data.text_files import LONGEST_LINE, read_lines
from erulab.errors import DataError

# First what the package `datasets` uploads: older copies in other formats may lie beside it.
SUFFIXES = ("-00000-of-00001.parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet", ".csv", ".csv.gz")
TEXTS = 'str or {"text": str}'
PARQUET_ROWS = 1024  # read together
BLANKS = " \t\r\n"


@dataclass(frozen=True)
class Record:
    """One object of a file, and where it stands ("forget.jsonl:3")."""

    where: str
    fields: dict[str, Any]

    def text(self, field: str, schema: str) -> str:
        """Returns a field that must hold text.

        Args:
            schema: what the record must look like, for messages.
        Raises:
            DataError: missing, of another type, blank, or holding half a surrogate pair.
        """
        if field not in self.fields:
            raise DataError(f"{self.where}: field {field!r} is missing; expected {schema}")
        return self._checked(field, self.fields[field], schema)

    def optional_text(self, field: str, schema: str) -> str | None:
        """Returns a field as `text` does; None where it is absent or null."""
        return None if self.fields.get(field) is None else self.text(field, schema)

    def optional_name(self, field: str, schema: str) -> str | None:
        """Returns a field as `optional_text` does; a whole number becomes its digits."""
        value = self.fields.get(field)
        return (
            str(value) if isinstance(value, int) and not isinstance(value, bool) else self.optional_text(field, schema)
        )

    def texts(self, field: str, schema: str) -> tuple[str, ...]:
        """Returns a field that must hold a list of texts; empty where it is absent or null.

        Raises:
            DataError: as `text`, of any of them.
        """
        values = self.fields.get(field)
        if values is None:
            return ()
        if not isinstance(values, list):
            raise DataError(f"{self.where}: field {field!r} must be a list of str, got {_type_name(values)}; {schema}")
        return tuple(self._checked(f"{field}[{i}]", value, schema) for i, value in enumerate(values))

    def inner(self, field: str, schema: str) -> Record:
        """Returns a field that must hold an object.

        Raises:
            DataError: it holds something else.
        """
        return self._object(field, self.fields.get(field), schema)

    def inners(self, field: str, schema: str) -> list[Record]:
        """Returns a field that must hold a list of objects.

        Raises:
            DataError: it holds something else.
        """
        values = self.fields.get(field)
        if not isinstance(values, list):
            raise DataError(
                f"{self.where}: field {field!r} must be a list, got {_type_name(values)}; expected {schema}"
            )
        return [self._object(f"{field}[{i}]", value, schema) for i, value in enumerate(values)]

    def _object(self, field: str, value: Any, schema: str) -> Record:
        if not isinstance(value, dict):
            raise DataError(
                f"{self.where}: field {field!r} must be an object, got {_type_name(value)}; expected {schema}"
            )
        return Record(self.where, value)

    def _checked(self, field: str, value: Any, schema: str) -> str:
        if not isinstance(value, str):
            raise DataError(f"{self.where}: field {field!r} must be str, got {_type_name(value)}; expected {schema}")
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
    """Finds the file (or folder of parquet files) that holds a table, whatever its format."""
    file = find_file(folder, name)
    if file is None and any((folder / name).glob("*.parquet")):
        return folder / name
    return file


def find_file(folder: Path, name: str) -> Path | None:
    """Finds the one file that holds a table, whatever its format."""
    return next((file for suffix in SUFFIXES if (file := folder / f"{name}{suffix}").is_file()), None)


def find_split(folder: Path, config: str, split: str) -> tuple[Path, ...]:
    """Finds a split's files as the hub lays them out, `<config>/<split>-00000-of-00001.parquet` and the like.

    Returns:
        Those files, or the one table `<config>/<split>`; empty where there are none.
    """
    shards = tuple(sorted((folder / config).glob(f"{split}-*.parquet")))
    table = find_table(folder / config, split)
    return shards or (() if table is None else (table,))


def read_records(source: Path, schema: str, bare: str | None = None) -> Iterator[Record]:
    """Yields the objects of a file: JSON lines, one JSON array, csv (gzipped or not), or parquet files.

    Args:
        schema: what a row must look like, for messages.
        bare: field that a string in place of an object is read as; None refuses strings.
    Raises:
        DataError: unreadable, empty, no JSON, or something other than objects; with file and line.
    """
    if source.is_dir() or source.suffix == ".parquet":
        records = _read_parquet(source)
    elif ".csv" in source.suffixes[-2:]:
        records = _read_csv(source)
    else:
        first = next((line.lstrip()[0] for _, line in read_lines(source) if line.strip()), "")
        values = _read_json_array(source, schema) if first == "[" else _read_json_lines(source, schema)
        records = (_record(where, value, schema, bare) for where, value in values)
    number = 0
    for number, record in enumerate(records, start=1):  # noqa: B007
        yield record
    if not number:
        raise DataError(f"{source}: the file is empty (0 rows); expected {schema}")


def read_texts(source: Path) -> Iterator[str]:
    """Yields whole texts, a blank one as "". A .txt file is one text; other files hold strings or objects with `text`.

    Raises:
        DataError: as `read_records`.
    """
    if source.suffix == ".txt":
        yield "".join(line for _, line in read_lines(source))
        return
    for record in read_records(source, TEXTS, bare="text"):
        value = record.fields.get("text")
        blank = isinstance(value, str) and not value.strip()
        yield "" if blank else record.text("text", TEXTS)


def read_paragraphs(file: Path) -> Iterator[Record]:
    """Yields the texts of a plain text file, parted by blank lines, each as a record of the one field "text".

    Raises:
        DataError: unreadable or empty.
    """
    paragraph: list[str] = []
    first = found = 0
    for number, line in itertools.chain(read_lines(file), [(0, "")]):
        if line.strip():
            first = first if paragraph else number
            paragraph.append(line.rstrip("\r\n"))
        elif paragraph:
            found += 1
            yield Record(f"{file}:{first}", {"text": "\n".join(paragraph)})
            paragraph = []
    if not found:
        raise DataError(f"{file}: the file is empty; expected texts with blank lines between them")


def _read_json_lines(file: Path, schema: str) -> Iterator[tuple[str, Any]]:
    for number, line in read_lines(file):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as error:
                raise DataError(f"{file}:{number}: no valid JSON ({error}); expected one {schema} per line") from error
            except RecursionError as error:
                raise DataError(f"{file}:{number}: no valid JSON (nested too deep)") from error
            yield f"{file}:{number}", value


def _read_json_array(file: Path, schema: str) -> Iterator[tuple[str, Any]]:
    """Yields the values of a file that is one JSON array, and where each stands. The whole text is in memory."""
    text = "".join(line for _, line in read_lines(file))
    decoder, position, line = json.JSONDecoder(), text.index("[") + 1, 1
    line += text.count("\n", 0, position)

    def skip_blanks(start: int) -> int:
        nonlocal line
        end = start
        while end < len(text) and text[end] in BLANKS:
            end += 1
        line += text.count("\n", start, end)
        return end

    position = skip_blanks(position)
    while text[position : position + 1] != "]":
        where = f"{file}:{line}"
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            if position == len(text):
                raise DataError(f"{where}: the array is not closed; expected an array of {schema}") from error
            raise DataError(f"{where}: no valid JSON ({error.msg}); expected an array of {schema}") from error
        except RecursionError as error:
            raise DataError(f"{where}: no valid JSON (nested too deep)") from error
        yield where, value
        line += text.count("\n", position, end)
        position = skip_blanks(end)
        if text[position : position + 1] == ",":
            position = skip_blanks(position + 1)
            if text[position : position + 1] == "]":
                raise DataError(f"{file}:{line}: a comma before the closing ]; remove it")
        elif text[position : position + 1] != "]":
            raise DataError(f"{file}:{line}: the array is not closed or lacks a comma; expected an array of {schema}")
    if skip_blanks(position + 1) < len(text):
        raise DataError(f"{file}:{line}: something follows the array; expected one array of {schema}, no more")


def _read_csv(file: Path) -> Iterator[Record]:
    """Yields the rows of a csv file with a header. Empty cells are absent fields; a cell "[...]" is a JSON list.

    Raises:
        DataError: a row has more cells than the header, or a quote is not closed.
    """
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.DictReader((line for _, line in read_lines(file)), strict=True)
    line = 1
    try:
        line = reader.line_num + 1 if reader.fieldnames is not None else line
        for cells in reader:
            where = f"{file}:{line}"
            if None in cells:
                raise DataError(
                    f"{where}: {len(cells[None])} cells more than the header's {len(reader.fieldnames or ())}; put "
                    "texts with commas in double quotes"
                )
            yield Record(where, {name: _cell_value(cell) for name, cell in cells.items() if cell})
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{file}:{line}: no valid csv ({error})") from error


def _cell_value(cell: str) -> Any:
    if not cell.startswith("["):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def _read_parquet(source: Path) -> Iterator[Record]:
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
        raise DataError(f"{where}: expected {schema}, got {_type_name(value)}")
    return Record(where, value)


def _type_name(value: Any) -> str:
    return "null" if value is None else type(value).__name__
