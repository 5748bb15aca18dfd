"""Rows as token ids, each tokenised once and kept in the cache, memory-mapped, for every later run."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lazy_loader

from erulab.data.arrow_sequence import DIGEST, DIGEST_BYTES, ArrowSequence
from erulab.data.dataset_cache import Notes, open_dataset, write_tables
from erulab.data.rows import Row
from erulab.data.stored_rows import StoredRows, hash_rows, rows_in_memory
from erulab.tokens.batch import Encoded
from erulab.tokens.chat import ChatFormat

if TYPE_CHECKING:
    import datasets
    import numpy as np
else:
    datasets = lazy_loader.load("datasets")
    np = lazy_loader.load("numpy")

VERSION = 2  # of the stored columns
TOGETHER = 512  # rows that the tokenizer is given at once
BATCH_ROWS = 4096  # rows of a record batch: each batch of a file costs some memory when the file is read


class EncodedRows(ArrowSequence[Encoded]):
    """Encoded rows that lie in a dataset.

    Columns: row_id, ids, start, end as in `Encoded`; `full_length`, the tokens without a limit; digest; where rows were
    narrowed, `supervised` as in `Encoded`.
    """

    @staticmethod
    def from_columns(columns: dict[str, list[Any]]) -> list[Encoded]:
        fields = [columns[name] for name in ("row_id", "ids", "start", "end")]
        if "supervised" not in columns:
            return [Encoded(row_id, tuple(ids), start, end) for row_id, ids, start, end in zip(*fields, strict=True)]
        return [
            Encoded(row_id, tuple(ids), start, end, tuple(supervised))
            for row_id, ids, start, end, supervised in zip(*fields, columns["supervised"], strict=True)
        ]

    def narrowed(self, supervised: Sequence[Sequence[int]]) -> EncodedRows:
        """Returns the rows with fewer supervised tokens.

        Args:
            supervised: of each row the indices of its ids that count, as in `Encoded`.
        """
        digests = [
            digest_encoded(row.row_id, row.ids, row.start, row.end, positions)
            for row, positions in zip(self, supervised, strict=True)
        ]
        rest = self.dataset.remove_columns(DIGEST)
        return EncodedRows(rest.add_column("supervised", list(supervised)).add_column(DIGEST, digests))


class Encoder:
    """Encodes rows as `ChatFormat.encode` does, and keeps their ids."""

    def __init__(self, chat: ChatFormat, max_length: int | None, cache: Path) -> None:
        """
        Args:
            max_length: tokens of a row, as in `ChatFormat.encode`.
            cache: the run's cache folder. Ids of rows that lie in files are kept in files there, others in memory.
        """
        self.chat, self.limit = chat, chat.limit(max_length)
        self._max_length, self._cache = max_length, cache
        self._identity = chat.identity()
        self._encoded: dict[str, EncodedRows] = {}

    def encode(self, rows: Sequence[Row]) -> EncodedRows:
        """Encodes each row's prompt and response.

        Raises:
            DataError: names the first row whose prompt leaves no room for a response.
        """
        encoded = self.encode_unchecked(rows)
        self._check_room(rows, encoded)
        return encoded

    def encode_unchecked(self, rows: Sequence[Row]) -> EncodedRows:
        """Encodes as `encode` does, but keeps rows whose prompt leaves no room: their "start" is not below `limit`."""
        if isinstance(rows, StoredRows) and rows.parts:
            return EncodedRows.concatenate([self.encode_unchecked(part) for part in rows.parts])
        if isinstance(rows, StoredRows) and rows.source is not None:
            return self.encode_unchecked(rows.source).select(rows.indices)
        return self._encode_stored(rows, "response", lambda row: row.response)

    def encode_with(self, rows: Sequence[Row], name: str, response: Callable[[Row], str]) -> EncodedRows:
        """Encodes each row's prompt with another response.

        Args:
            name: of the responses in the cache; says everything `response` depends on beside the row.
            response: gives a row's response.
        Raises:
            DataError: as `encode`, and what `response` raises.
        """
        encoded = self._encode_stored(rows, name, response)
        self._check_room(rows, encoded)
        return encoded

    def _encode_stored(self, rows: Sequence[Row], name: str, response: Callable[[Row], str]) -> EncodedRows:
        depends_on = {
            "version": VERSION,
            "rows": hash_rows(rows),
            "chat": self._identity,
            "limit": self.limit,
            "response": name,
        }
        key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
        if key not in self._encoded:
            if isinstance(rows, StoredRows):

                def write(file: Path, notes: Notes) -> None:
                    self._map_rows(rows, key, response, file)

                self._encoded[key] = EncodedRows(*open_dataset(self._cache / "tokens" / key, write))
            else:
                self._encoded[key] = EncodedRows(self._map_rows(rows_in_memory(rows), key, response, None))
        return self._encoded[key]

    def _map_rows(
        self, rows: StoredRows, key: str, response: Callable[[Row], str], file: Path | None
    ) -> datasets.Dataset:
        """Tokenises the rows into a dataset, in the file where one is given."""
        value, numbers = datasets.Value, datasets.Value("int32")
        columns = {"row_id": value("string"), "ids": datasets.List(numbers), DIGEST: value("binary")}
        features = datasets.Features({**columns, **dict.fromkeys(("start", "end", "full_length"), numbers)})
        if not rows:  # `map` writes no file for no rows
            if file is not None:
                write_tables(file, features.arrow_schema, [])
            return datasets.Dataset(features.arrow_schema.empty_table())
        datasets.disable_progress_bars()
        return rows.dataset.map(
            lambda batch: self._encode_batch(rows.from_columns(batch), response),
            batched=True,
            batch_size=BATCH_ROWS,
            writer_batch_size=BATCH_ROWS,
            remove_columns=rows.dataset.column_names,
            features=features,
            keep_in_memory=file is None,
            load_from_cache_file=False,
            cache_file_name=None if file is None else str(file),
            new_fingerprint=key,
        )

    def _encode_batch(self, rows: Sequence[Row], response: Callable[[Row], str]) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {name: [] for name in ("row_id", "ids", "start", "end", "full_length", DIGEST)}
        for first in range(0, len(rows), TOGETHER):
            some = rows[first : first + TOGETHER]
            full = self.chat.encode_batch(some, [response(row) for row in some])
            for row, (ids, start) in zip(some, full, strict=True):
                kept = ids[: self.limit]
                digest = digest_encoded(row.id, kept, start, len(kept))
                for name, made in zip(columns, (row.id, kept, start, len(kept), len(ids), digest), strict=True):
                    columns[name].append(made)
        return columns

    def _check_room(self, rows: Sequence[Row], encoded: EncodedRows) -> None:
        full = np.flatnonzero(encoded.column("start") >= self.limit)
        if len(full):
            raise self.chat.no_room_error(rows[int(full[0])], int(encoded.column("start")[full[0]]), self.limit)


def digest_encoded(
    row_id: str, ids: Sequence[int], start: int, end: int, supervised: Sequence[int] | None = None
) -> bytes:
    """Hashes every field of an `Encoded` to 16 bytes; the parameters are its fields."""
    text = f"{len(row_id)} {row_id} {start} {end} ".encode()
    # A row whose whole response counts has the hash that it had before there were others: it is part of stage keys.
    only = b"" if supervised is None else b" only " + array("i", supervised).tobytes()
    return hashlib.blake2b(text + array("i", ids).tobytes() + only, digest_size=DIGEST_BYTES).digest()
