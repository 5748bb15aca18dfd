"""Rows that a model can read: prompts that leave room for a response, and a count of what was cut."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from erulab.data.measures import Answers
from erulab.data.rows import Benchmark, Row, Truncate
from erulab.data.sequences import Joined, Marked, pick
from erulab.data.tables import field_of, row_table, rows_hash
from erulab.errors import DataError
from erulab.models.chat import ChatFormat
from erulab.models.encoder import Encoder

log = logging.getLogger(__name__)

VERSION = 1  # of how prompts are shortened

Hashes = np.ndarray[Any, np.dtype[np.uint64]]  # of row ids


def fitted(benchmark: Benchmark, encoder: Encoder, cache: Path) -> Benchmark:
    """The benchmark with every prompt short enough, by `benchmark.truncate`; notes tell what was changed.

    error: a prompt that fills the context is a fault; drop: its row goes; left: the prompt loses words at its
    beginning. Responses longer than what is left are cut at their end by the encoding, and counted here.
    `max_length` is of the rows that are learned, and of suites that ask alike. A protocol with prompts of its own
    (several examples, a long opening) is limited by the model's context only.

    Args:
        cache: the run's cache folder, where shortened rows of files are kept.
    Raises:
        DataError: a prompt does not fit under truncate=error, or no row is left.
    """
    learning = asking = _Fitting(benchmark, encoder, cache)
    if benchmark.max_length is not None:
        unlimited = dataclasses.replace(benchmark, max_length=None)
        asking = _Fitting(unlimited, Encoder(encoder.chat, None, cache), cache)
    fit = learning.fit
    made = dataclasses.replace(
        benchmark,
        forget=fit(benchmark.forget),
        retain=fit(benchmark.retain),
        target_rows=fit(benchmark.target_rows),
        oracle_rows=fit(benchmark.oracle_rows),
        suites=tuple(
            dataclasses.replace(
                suite, rows=fit(suite.rows) if isinstance(suite.measure, Answers) else asking.fit(suite.rows)
            ) for suite in benchmark.suites
        ),
    )  # fmt: skip
    notes = [note for fitting in dict.fromkeys((learning, asking)) for note in fitting.notes()]
    for note in notes:
        log.warning("%s", note)
    if (benchmark.forget and not made.forget) or not all(suite.rows for suite in made.suites):
        raise DataError(f"{notes[0]}, and a part of the data set has 0 rows left; raise dataset.max_length")
    return dataclasses.replace(made, notes=(*benchmark.notes, *notes))


class _Fitting:
    """Each part of a benchmark fitted once; the ids of the rows that were changed, a row that is in two parts twice."""

    def __init__(self, benchmark: Benchmark, encoder: Encoder, cache: Path) -> None:
        self._benchmark, self._encoder, self._cache = benchmark, encoder, cache
        self._done: dict[int, Sequence[Row]] = {}
        none: Hashes = np.empty(0, np.uint64)
        self.changed: dict[str, list[Hashes]] = {name: [none] for name in ("dropped", "shortened", "cut")}

    def notes(self) -> list[str]:
        """What a reader of the report must know of the changes."""
        dropped, shortened, cut = (len(np.unique(np.concatenate(ids))) for ids in self.changed.values())
        return [
            note for count, note in (
                (dropped, f"{dropped} rows dropped: their prompts fill the {self._encoder.limit} tokens"),
                (shortened, f"{shortened} prompts shortened at their beginning"),
                (cut, f"{cut} responses cut at their end: they lose their end"),
            ) if count
        ]  # fmt: skip

    def fit(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows that are kept, with the prompts they have now: the same object where that is all of them."""
        if id(rows) not in self._done:
            self._done[id(rows)] = self._joined(rows) if isinstance(rows, Joined) else self._fit(rows)
        return self._done[id(rows)]

    def _joined(self, rows: Joined[Row]) -> Sequence[Row]:
        parts = [self.fit(part) for part in rows.parts]
        unchanged = all(new is old for new, old in zip(parts, rows.parts, strict=True))
        return rows if unchanged else Joined([cast("Marked[Row]", part) for part in parts])

    def _fit(self, rows: Sequence[Row]) -> Sequence[Row]:
        encoder, truncate = self._encoder, self._benchmark.truncate
        full = encoder.measured(rows).field("start") >= encoder.limit
        kept = rows
        if full.any():
            if truncate is Truncate.error:
                encoder.rows(rows)  # raises, naming the row
            kept = pick(rows, np.flatnonzero(~full)) if truncate is Truncate.drop else self._shortened(rows)
            ids = field_of(rows, "id")[full]
            dropped = ~np.isin(ids, field_of(kept, "id"))
            self.changed["dropped"].append(ids[dropped])
            self.changed["shortened"].append(ids[~dropped])
        if kept:
            cut = encoder.measured(kept).field("whole") > encoder.limit
            self.changed["cut"].append(field_of(kept, "id")[cut])
        return kept

    def _shortened(self, rows: Sequence[Row]) -> Sequence[Row]:
        def made() -> Iterator[Row]:
            shorter = (_shorter(row, self._encoder.chat, self._benchmark.max_length) for row in rows)
            return (row for row in shorter if row is not None)

        if not isinstance(rows, Marked):
            return tuple(made())
        depends_on = {
            "shortened": VERSION, "rows": rows_hash(rows), "chat": self._encoder.chat.identity(),
            "limit": self._encoder.limit,
        }  # fmt: skip
        return row_table(self._cache, depends_on, lambda extra: made())


def _shorter(row: Row, chat: ChatFormat, max_length: int | None) -> Row | None:
    """The row without the fewest words from the left whose loss makes room; None where none do."""
    def fits(prompt: str) -> bool:
        return chat.has_room(prompt, max_length, plain=row.plain, lead=row.lead)

    if fits(row.prompt):
        return row
    words = row.prompt.split(" ")
    first, last = 1, len(words)
    while first < last:
        middle = (first + last) // 2
        if fits(" ".join(words[middle:])):
            last = middle
        else:
            first = middle + 1
    shorter = " ".join(words[first:])
    return dataclasses.replace(row, prompt=shorter) if shorter and fits(shorter) else None
