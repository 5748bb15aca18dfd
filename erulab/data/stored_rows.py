"""Rows of a benchmark in the cache folder, with what checks and keys need to know of each row as columns."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lazy_loader

from erulab.data.arrow_sequence import DIGEST, DIGEST_BYTES, ArrowSequence, hash_digests
from erulab.data.dataset_cache import Notes, open_dataset, write_tables
from erulab.data.rows import Row
from erulab.data.words import split_words
from erulab.errors import DataError

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import pyarrow
else:
    datasets = lazy_loader.load("datasets")
    np = lazy_loader.load("numpy")
    pyarrow = lazy_loader.load("pyarrow")

VERSION = 6  # of the stored columns
# A batch is what is in memory while rows are written. It is large, because each batch of a file costs some memory when
# the file is read.
BATCH_ROWS, BATCH_CHARACTERS = 4096, 1 << 24
FIELDS = tuple(field.name for field in dataclasses.fields(Row))
TUPLES = ("perturbed", "candidates", "options", "accepted", "spans", "span_alternatives")
# Fields that the hash of a row leaves out where they are empty, so that a row without them has the hash that it had
# before there were any.
HASHED_IF_GIVEN = ("spans", "span_alternatives")
# Columns beside the row's own fields, and numpy's type of each. Two of a million rows share a 64-bit hash by chance in
# one of 10^7 data sets.
DERIVED = {
    "id_hash": "uint64",
    "content_hash": "uint64",  # of prompt and response, white space and Unicode form (NFKC) aside
    "words_hash": "uint64",  # the same without case and punctuation
    "blank": "bool",  # nothing could be learned from the row
    "answered": "bool",  # the row has a response
    DIGEST: f"V{DIGEST_BYTES}",  # hash of every field
}


class StoredRows(ArrowSequence[Row]):
    """Rows that lie in a dataset; each is built when it is read."""

    @staticmethod
    def from_columns(columns: dict[str, list[Any]]) -> list[Row]:
        columns = {name: columns[name] for name in FIELDS}
        for name in TUPLES:
            columns[name] = [tuple(values) for values in columns[name]]
        columns["history"] = [tuple((user, reply) for user, reply in turns) for turns in columns["history"]]
        return [Row(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def store_rows(cache: Path, depends_on: dict[str, Any], make: Callable[[Notes], Iterable[Row]]) -> StoredRows:
    """Returns the rows that `make` yields, kept in the cache under what they depend on.

    Args:
        cache: the run's cache folder.
        depends_on: everything the rows depend on, by content; a path never counts.
        make: is given a dict for notes (plain JSON values) and yields the rows.
    Raises:
        EnvironmentFault: the cache cannot be written. Errors of `make` pass through.
    """
    text = json.dumps({"version": VERSION, **depends_on}, sort_keys=True)
    folder = cache / "rows" / hashlib.sha256(text.encode()).hexdigest()[:16]
    return StoredRows(
        *open_dataset(folder, lambda file, notes: write_tables(file, _schema(), _row_tables(make(notes))))
    )


def rows_in_memory(rows: Iterable[Row]) -> StoredRows:
    """Returns the rows as a dataset in memory."""
    empty = _schema().empty_table()
    return StoredRows(datasets.Dataset(pyarrow.concat_tables([empty, *_row_tables(rows)])))


def row_column(rows: Sequence[Row], name: str) -> np.ndarray[Any, Any]:
    """Returns one number or truth value of each row, (rows,), wherever the rows are.

    Args:
        name: "exposures", "plain", or one of `DERIVED` except the digest.
    """
    if isinstance(rows, StoredRows):
        return rows.column(name)
    if name in DERIVED:
        return np.array([_derived_columns(row)[name] for row in rows], DERIVED[name])
    return np.array([getattr(row, name) for row in rows], {"exposures": "int32", "plain": "bool"}[name])


def hash_rows(rows: Sequence[Row]) -> str:
    """Hashes every field of every row in order, 32 hex digits."""
    if isinstance(rows, StoredRows):
        return rows.content_hash()
    return hash_digests(iter([np.array([_derived_columns(row)[DIGEST] for row in rows], DERIVED[DIGEST])]))


def hash_file(source: Path) -> str:
    """Hashes a file's bytes, or those of a folder's parquet files in order, 32 hex digits.

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


def _schema() -> pyarrow.Schema:
    text = pyarrow.string()
    types = {
        **dict.fromkeys(FIELDS, text),
        **dict.fromkeys(TUPLES, pyarrow.list_(text)),
        "history": pyarrow.list_(pyarrow.list_(text)),
        "exposures": pyarrow.int32(),
        "plain": pyarrow.bool_(),
        "id_hash": pyarrow.uint64(),
        "content_hash": pyarrow.uint64(),
        "words_hash": pyarrow.uint64(),
        "blank": pyarrow.bool_(),
        "answered": pyarrow.bool_(),
        DIGEST: pyarrow.binary(),
    }
    return pyarrow.schema(list(types.items()))


def _row_tables(rows: Iterable[Row]) -> Iterator[pyarrow.Table]:
    """Yields the rows as tables of at most `BATCH_ROWS` rows and about `BATCH_CHARACTERS` characters."""
    schema = _schema()
    batch: list[dict[str, Any]] = []
    characters = 0
    for row in rows:
        batch.append({**vars(row), **_derived_columns(row)})
        characters += (
            len(row.prompt) + len(row.response) + sum(len(text) for name in TUPLES for text in vars(row)[name])
        )
        if len(batch) == BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield pyarrow.Table.from_pylist(batch, schema)
            batch, characters = [], 0
    if batch:
        yield pyarrow.Table.from_pylist(batch, schema)


def _derived_columns(row: Row) -> dict[str, Any]:
    texts = [*(text for turn in row.history for text in turn), row.prompt, row.response]
    *words, answer = [" ".join(unicodedata.normalize("NFKC", text).split()) for text in texts]
    hashed = tuple(value for name, value in vars(row).items() if value or name not in HASHED_IF_GIVEN)
    return {
        "id_hash": _short_hash(row.id),
        "content_hash": _short_hash(repr((words, answer))),
        # A text without words, such as signs, is compared as it is written.
        "words_hash": _short_hash(repr([split_words(text) or text.split() for text in texts])),
        "blank": not (row.response.strip() or row.refusal) or not (row.plain or row.prompt.strip()),
        "answered": bool(row.response.strip()),
        DIGEST: hashlib.blake2b(repr(hashed).encode(), digest_size=DIGEST_BYTES).digest(),
    }


def _short_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
