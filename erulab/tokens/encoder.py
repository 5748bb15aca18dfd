"""Rows as token ids, each tokenised once: kept beside the rows of files, memory-mapped, for every later run."""

from __future__ import annotations

import hashlib
import itertools
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lazy_loader

from erulab.data.rows import Row
from erulab.data.sequences import Joined, Marked, Picked
from erulab.data.store import Entry, Layout, Table, collected, stored
from erulab.data.tables import rows_hash
from erulab.tokens.batch import Encoded
from erulab.tokens.chat import ChatFormat

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_loader.load("numpy")

VERSION = 1  # of what a table of ids holds
LAYOUT = Layout(
    {"row_id": "string", "ids": "[int32]"},
    # Where the response begins and ends; the tokens there would be without a limit; a hash of all an Encoded is.
    (("start", "<i4"), ("end", "<i4"), ("whole", "<i4"), ("digest", "V16")),
)
TOGETHER = 512  # rows that the tokenizer is given at once


class EncodedTable(Marked[Encoded]):
    """Encoded rows of a table; each is built when it is asked for."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def item(self, index: int) -> Encoded:
        (row_ids, ids), place = self._table.locate(index)
        mark = self._table.marks[index]
        return Encoded(
            row_ids[place].as_py(), tuple(ids[place].values.to_numpy().tolist()), int(mark["start"]), int(mark["end"])
        )

    def field(self, name: str) -> np.ndarray[Any, Any]:
        return self._table.marks[name]

    def digests(self) -> Iterator[np.ndarray[Any, Any]]:
        yield self._table.marks["digest"]


class Encoder:
    """Gives rows the ids that `ChatFormat.encode` gives them, and keeps them."""

    def __init__(self, chat: ChatFormat, max_length: int | None, cache: Path) -> None:
        """
        Args:
            max_length: tokens of a row, as in `ChatFormat.encode`.
            cache: the run's cache folder. Ids of rows that lie in files are kept in files there, others in memory.
        """
        self.chat, self.limit = chat, chat.limit(max_length)
        self._max_length, self._cache = max_length, cache
        self._identity = chat.identity()
        self._known: dict[str, EncodedTable] = {}

    def rows(self, rows: Sequence[Row]) -> Marked[Encoded]:
        """Each row's prompt and response.

        Raises:
            DataError: names the first row whose prompt leaves no room for a response.
        """
        encoded = self.measured(rows)
        self._check(rows, encoded)
        return encoded

    def measured(self, rows: Sequence[Row]) -> Marked[Encoded]:
        """As `rows`, also those whose prompt leaves no room: their field "start" is not below `limit`."""
        if isinstance(rows, Joined):
            return Joined([self.measured(part) for part in rows.parts])
        if isinstance(rows, Picked):
            return Picked(self.measured(rows.source), rows.places)
        return self._encoded(rows, "response", lambda row: row.response)

    def answered(self, rows: Sequence[Row], name: str, response: Callable[[Row], str]) -> Marked[Encoded]:
        """Each row's prompt with another response; `name` says all that `response` depends on but the row.

        Raises:
            DataError: as `rows`, and what `response` raises.
        """
        encoded = self._encoded(rows, name, response)
        self._check(rows, encoded)
        return encoded

    def _encoded(self, rows: Sequence[Row], name: str, response: Callable[[Row], str]) -> EncodedTable:
        depends_on = {
            "version": VERSION,
            "rows": rows_hash(rows),
            "chat": self._identity,
            "limit": self.limit,
            "response": name,
        }
        key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
        if key not in self._known:

            def make(extra: dict[str, Any]) -> Iterator[Entry]:
                return self._entries(rows, response)

            in_files = isinstance(rows, Marked)
            table = stored(self._cache / "tokens" / key, LAYOUT, make) if in_files else collected(LAYOUT, make)
            self._known[key] = EncodedTable(table)
        return self._known[key]

    def _entries(self, rows: Sequence[Row], response: Callable[[Row], str]) -> Iterator[Entry]:
        for some in _chunks(iter(rows)):
            whole: list[tuple[list[int], int]] = []
            # Conversations and running text may stand in one file.
            for (plain, lead), part in itertools.groupby(some, key=lambda row: (row.plain, row.lead)):
                texts = [(row.prompt, response(row)) for row in part]
                whole += self.chat.encode_whole(texts, plain=plain, lead=lead)
            for row, (ids, start) in zip(some, whole, strict=True):
                kept = ids[: self.limit]
                digest = digest_of(row.id, kept, start, len(kept))
                yield (row.id, kept), (start, len(kept), len(ids), digest)

    def _check(self, rows: Sequence[Row], encoded: Marked[Encoded]) -> None:
        full = np.flatnonzero(encoded.field("start") >= self.limit)
        if len(full):
            row = rows[int(full[0])]
            # Says what to do.
            self.chat.encode(
                row.id, row.prompt, row.response, max_length=self._max_length, plain=row.plain, lead=row.lead
            )


def digest_of(row_id: str, ids: Sequence[int], start: int, end: int) -> bytes:
    """16 bytes that stand for all an `Encoded` is."""
    text = f"{len(row_id)} {row_id} {start} {end} ".encode()
    return hashlib.blake2b(text + array("i", ids).tobytes(), digest_size=16).digest()


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while some := list(itertools.islice(rows, TOGETHER)):
        yield some
