"""Rows that a model can read: prompts that leave room for a response, texts in pieces, and a count of what was cut."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from erulab.data.measures import Answers, Generated
from erulab.data.rows import Benchmark, Row, Suite, Truncate
from erulab.data.sequences import Joined, Marked, pick
from erulab.data.tables import field_of, row_table, rows_hash
from erulab.errors import DataError
from erulab.tokens.encoder import Encoder
from erulab.tokens.pieces import pieces

log = logging.getLogger(__name__)

VERSION = 1  # of how prompts are shortened and texts are cut

Hashes = np.ndarray[Any, np.dtype[np.uint64]]  # of row ids


def fitted(benchmark: Benchmark, encoder: Encoder, cache: Path) -> Benchmark:
    """The benchmark with every prompt short enough, by `benchmark.truncate`; notes tell what was changed.

    error: a prompt that fills the context is a fault; drop: its row goes; left: the prompt loses words at its
    beginning, so many that a response which is generated has room too. Responses longer than what is left are cut at
    their end by the encoding, and counted here. A text that is learned loses nothing: it goes on in further rows.
    `max_length` is of the rows that are learned, and of suites that ask alike. A protocol with prompts of its own
    (several examples, a long opening) is limited by the model's context only.

    Args:
        cache: the run's cache folder, where changed rows of files are kept.
    Raises:
        DataError: a prompt does not fit under truncate=error, or no row is left.
    """
    fitting = _Fitting(benchmark, encoder, cache)
    learned = fitting.learned
    made = dataclasses.replace(
        benchmark,
        forget=learned(benchmark.forget),
        retain=learned(benchmark.retain),
        target_rows=learned(benchmark.target_rows),
        oracle_rows=learned(benchmark.oracle_rows),
        requests=tuple(dataclasses.replace(one, forget=learned(one.forget)) for one in benchmark.requests),
        suites=tuple(dataclasses.replace(suite, rows=fitting.measured(suite)) for suite in benchmark.suites),
    )
    dropped, shortened, cut, split, parts, empty, tight = (
        len(np.unique(np.concatenate(ids))) for ids in fitting.changed.values()
    )
    notes = [
        note
        for count, note in (
            (dropped, f"{dropped} rows dropped: their prompts fill the {encoder.limit} tokens"),
            (shortened, f"{shortened} prompts shortened at their beginning"),
            (cut, f"{cut} responses are longer than the room for them: their end is left out"),
            (split, f"{split} texts longer than {encoder.limit} tokens are learned in {parts} pieces"),
            (empty, f"{empty} texts dropped: of a single token nothing can be learned"),
            (tight, f"{tight} prompts leave less room than the response may take: it ends at the context's end"),
        )
        if count
    ]
    for note in notes:
        log.warning("%s", note)
    if (benchmark.forget and not made.forget) or not all(suite.rows for suite in made.suites):
        why = f"{notes[0]}, and a" if notes else "A"
        raise DataError(f"{why} part of the data set {benchmark.name} has 0 rows left; raise dataset.max_length")
    return dataclasses.replace(made, notes=(*benchmark.notes, *notes))


class _Fitting:
    """Each part of a benchmark fitted once; the ids of the rows that were changed, a row that is in two parts twice."""

    def __init__(self, benchmark: Benchmark, encoder: Encoder, cache: Path) -> None:
        self._benchmark, self._encoder, self._cache = benchmark, encoder, cache
        self._context = encoder.chat.limit(None)
        self._done: dict[tuple[object, ...], Sequence[Row]] = {}
        none: Hashes = np.empty(0, np.uint64)
        self.changed: dict[str, list[Hashes]] = {
            name: [none] for name in ("dropped", "shortened", "cut", "split", "pieces", "empty", "tight")
        }

    def learned(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows that a training gets: the same object where that is all of them, as they are."""
        return self._once((self._learned,), rows)

    def measured(self, suite: Suite) -> Sequence[Row]:
        """The rows of a suite, likewise; texts stay whole."""
        limit = self._encoder.limit if isinstance(suite.measure, Answers) else self._context
        rows = self._once((self._measured, limit, self._most(suite, limit)), suite.rows)
        if isinstance(suite.measure, Generated):
            tight = self._encoder.measured(rows).field("start") + suite.measure.max_new_tokens > self._context
            self.changed["tight"].append(field_of(rows, "id")[tight])
        return rows

    def _once(self, how: tuple[Any, ...], rows: Sequence[Row]) -> Sequence[Row]:
        """What `how`, a function and what it is given beside rows, makes of each part of the rows."""
        key = (id(rows), *how)
        if key not in self._done:
            if isinstance(rows, Joined):
                parts = [self._once(how, part) for part in rows.parts]
                unchanged = all(new is old for new, old in zip(parts, rows.parts, strict=True))
                self._done[key] = rows if unchanged else Joined([cast("Marked[Row]", part) for part in parts])
            else:
                function, *arguments = how
                self._done[key] = function(rows, *arguments)
        return self._done[key]

    def _learned(self, rows: Sequence[Row]) -> Sequence[Row]:
        kept = self._once((self._kept, self._encoder.limit - 1), rows)
        self._count_cut(kept, self._encoder.limit, ~self._texts(kept))
        return self._in_pieces(kept)

    def _measured(self, rows: Sequence[Row], limit: int, most: int) -> Sequence[Row]:
        kept = self._once((self._kept, most), rows)
        texts = self._texts(kept)
        self._count_cut(kept, np.where(texts, self._context, limit), np.ones(len(kept), bool))
        return kept

    def _most(self, suite: Suite, limit: int) -> int:
        """Tokens that a prompt may have. One that is shortened leaves room for what will be generated."""
        room = 0
        if self._benchmark.truncate is Truncate.left and isinstance(suite.measure, Generated):
            room = min(suite.measure.max_new_tokens, self._context // 2)
        return min(limit - 1, self._context - room)

    def _kept(self, rows: Sequence[Row], most: int) -> Sequence[Row]:
        """The rows whose prompts have at most so many tokens, or could be shortened to that."""
        encoder, truncate = self._encoder, self._benchmark.truncate
        full = encoder.measured(rows).field("start") > most
        if not full.any():
            return rows
        if truncate is Truncate.error:
            row = rows[int(np.flatnonzero(full)[0])]
            # Says what to do.
            encoder.chat.encode(row.id, row.prompt, row.response, max_length=most + 1, plain=row.plain, lead=row.lead)
        kept = pick(rows, np.flatnonzero(~full)) if truncate is Truncate.drop else self._shortened(rows, most)
        ids = field_of(rows, "id")[full]
        dropped = ~np.isin(ids, field_of(kept, "id"))
        self.changed["dropped"].append(ids[dropped])
        self.changed["shortened"].append(ids[~dropped])
        return kept

    def _count_cut(self, rows: Sequence[Row], limit: int | np.ndarray[Any, Any], counts: np.ndarray[Any, Any]) -> None:
        """Notes the rows whose responses lose their end: those that are over the limit and that count."""
        cut = (self._encoder.measured(rows).field("whole") > limit) & counts
        self.changed["cut"].append(field_of(rows, "id")[cut])

    def _texts(self, rows: Sequence[Row]) -> np.ndarray[Any, Any]:
        """(rows,) bool, those that are running text without a prompt."""
        return field_of(rows, "plain") & (self._encoder.measured(rows).field("start") == 0)

    def _shortened(self, rows: Sequence[Row], most: int) -> Sequence[Row]:
        return self._changed(rows, {"shortened": VERSION, "most": most}, lambda row: _shorter(row, self._encoder, most))

    def _in_pieces(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Texts longer than a row may be, cut into rows of their own; nothing of them is lost."""
        encoder, texts = self._encoder, self._texts(rows)
        encoded = encoder.measured(rows)
        long = texts & (encoded.field("whole") > encoder.limit)
        empty = texts & (encoded.field("end") < 2)  # the first id of a text is never supervised
        if not (long | empty).any():
            return rows
        ids = field_of(rows, "id")
        made = self._changed(rows, {"pieces": VERSION}, lambda row: _pieces(row, encoder))
        self.changed["split"].append(ids[long])
        self.changed["empty"].append(ids[empty])
        self.changed["pieces"].append(field_of(made, "id")[~np.isin(field_of(made, "id"), ids)])
        return made

    def _changed(
        self, rows: Sequence[Row], how: dict[str, Any], change: Callable[[Row], Iterable[Row]]
    ) -> Sequence[Row]:
        """Rows made of rows, on disk where those are."""
        if not isinstance(rows, Marked):
            return tuple(new for row in rows for new in change(row))
        encoder = self._encoder
        depends_on = {**how, "rows": rows_hash(rows), "chat": encoder.chat.identity(), "limit": encoder.limit}
        return row_table(self._cache, depends_on, lambda extra: (new for row in rows for new in change(row)))


def _pieces(row: Row, encoder: Encoder) -> Iterator[Row]:
    """A text as one row, or as several; a conversation as it is."""
    tokens = len(encoder.chat.encode_prompt(row.response, plain=True)) if row.plain and not row.prompt else None
    if tokens is None or 2 <= tokens <= encoder.limit:
        yield row
    elif tokens > encoder.limit:
        for number, text in enumerate(pieces(row.response, encoder.chat, encoder.limit)):
            yield dataclasses.replace(row, id=f"{row.id}/{number}", response=text, fact=row.fact_id)


def _shorter(row: Row, encoder: Encoder, most: int) -> Iterator[Row]:
    """The row without the fewest words from the left whose loss makes its prompt short enough; none where none do."""

    def fits(prompt: str) -> bool:
        return len(encoder.chat.encode_prompt(prompt, plain=row.plain, lead=row.lead)) <= most

    if fits(row.prompt):
        yield row
        return
    words = row.prompt.split(" ")
    first, last = 1, len(words)
    while first < last:
        middle = (first + last) // 2
        if fits(" ".join(words[middle:])):
            last = middle
        else:
            first = middle + 1
    shorter = " ".join(words[first:])
    if shorter and fits(shorter):
        yield dataclasses.replace(row, prompt=shorter)
