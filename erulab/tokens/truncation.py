"""Makes rows fit a model: shortens or drops long prompts, splits long texts, and counts what was cut."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from erulab.data.arrow_sequence import select_items
from erulab.data.measures import Answers, Generated
from erulab.data.rows import Benchmark, Row, Suite, Truncate
from erulab.data.stored_rows import StoredRows, hash_rows, row_column, store_rows
from erulab.errors import DataError
from erulab.tokens.encoder import Encoder
from erulab.tokens.pieces import split_text

log = logging.getLogger(__name__)

VERSION = 1  # of how prompts are shortened and texts are split

Hashes = np.ndarray[Any, np.dtype[np.uint64]]  # of row ids


def truncate_to_context(benchmark: Benchmark, encoder: Encoder, cache: Path) -> Benchmark:
    """Returns the benchmark with every prompt short enough, by `benchmark.truncate`; notes tell what was changed.

    error: a prompt that fills the context raises; drop: its row is left out; left: the prompt loses words at its
    beginning until a generated response has room too. Responses longer than the room left are cut at their end by the
    encoding, and counted here. A text that is learned loses nothing: it goes on in further rows.
    `max_length` limits the rows that are learned, and suites that ask in the same way (`Answers`). A protocol with
    prompts of its own (several examples, a long opening) is limited by the model's context only.

    Args:
        cache: the run's cache folder, where changed rows of files are kept.
    Raises:
        DataError: a prompt does not fit under truncate=error, or no row is left.
    """
    truncation = _Truncation(benchmark, encoder, cache)
    learned = truncation.learned_rows
    made = dataclasses.replace(
        benchmark,
        forget=learned(benchmark.forget),
        retain=learned(benchmark.retain),
        target_rows=learned(benchmark.target_rows),
        oracle_rows=learned(benchmark.oracle_rows),
        requests=tuple(dataclasses.replace(one, forget=learned(one.forget)) for one in benchmark.requests),
        suites=tuple(dataclasses.replace(suite, rows=truncation.suite_rows(suite)) for suite in benchmark.suites),
    )
    dropped, shortened, cut, split, pieces, empty, tight = (
        len(np.unique(np.concatenate(ids))) for ids in truncation.changed_ids.values()
    )
    notes = [
        note
        for count, note in (
            (dropped, f"{dropped} rows dropped: their prompts fill the {encoder.limit} tokens"),
            (shortened, f"{shortened} prompts shortened at their beginning"),
            (cut, f"{cut} responses are longer than the room for them: their end is left out"),
            (split, f"{split} texts longer than {encoder.limit} tokens are learned in {pieces} pieces"),
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


class _Truncation:
    """Truncates each part of a benchmark once, and collects the ids of changed rows: a row in two parts counts once."""

    def __init__(self, benchmark: Benchmark, encoder: Encoder, cache: Path) -> None:
        self._benchmark, self._encoder, self._cache = benchmark, encoder, cache
        self._context = encoder.chat.limit(None)
        self._made: dict[tuple[object, ...], Sequence[Row]] = {}
        none: Hashes = np.empty(0, np.uint64)
        self.changed_ids: dict[str, list[Hashes]] = {
            name: [none] for name in ("dropped", "shortened", "cut", "split", "pieces", "empty", "tight")
        }

    def learned_rows(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Returns the rows a training gets; the same object where nothing changes."""
        return self._cached((self._truncate_learned,), rows)

    def suite_rows(self, suite: Suite) -> Sequence[Row]:
        """Returns the rows of a suite; the same object where nothing changes. Texts stay whole."""
        limit = self._encoder.limit if isinstance(suite.measure, Answers) else self._context
        rows = self._cached((self._truncate_measured, limit, self._longest_prompt(suite, limit)), suite.rows)
        if isinstance(suite.measure, Generated):
            starts = self._encoder.encode_unchecked(rows).column("start")
            tight = starts + suite.measure.max_new_tokens > self._context
            self.changed_ids["tight"].append(row_column(rows, "id_hash")[tight])
        return rows

    def _cached(self, change: tuple[Any, ...], rows: Sequence[Row]) -> Sequence[Row]:
        """Applies `change`, a function and its further arguments, to each stored part of the rows, once per part."""
        key = (id(rows), *change)
        if key not in self._made:
            if isinstance(rows, StoredRows) and rows.parts:
                parts = [self._cached(change, part) for part in rows.parts]
                unchanged = all(new is old for new, old in zip(parts, rows.parts, strict=True))
                # All of them: stored rows stay stored. The check is for the type checker.
                stored = [part for part in parts if isinstance(part, StoredRows)]
                self._made[key] = rows if unchanged else StoredRows.concatenate(stored)
            else:
                function, *arguments = change
                self._made[key] = function(rows, *arguments)
        return self._made[key]

    def _truncate_learned(self, rows: Sequence[Row]) -> Sequence[Row]:
        kept = self._cached((self._rows_that_fit, self._encoder.limit - 1), rows)
        self._count_cut(kept, self._encoder.limit, ~self._are_texts(kept))
        return self._split_texts(kept)

    def _truncate_measured(self, rows: Sequence[Row], limit: int, longest: int) -> Sequence[Row]:
        kept = self._cached((self._rows_that_fit, longest), rows)
        self._count_cut(kept, np.where(self._are_texts(kept), self._context, limit), np.ones(len(kept), bool))
        return kept

    def _longest_prompt(self, suite: Suite, limit: int) -> int:
        """Returns the tokens a prompt may have; a shortened prompt leaves room for the response that is generated."""
        room = 0
        if self._benchmark.truncate is Truncate.left and isinstance(suite.measure, Generated):
            room = min(suite.measure.max_new_tokens, self._context // 2)
        return min(limit - 1, self._context - room)

    def _rows_that_fit(self, rows: Sequence[Row], longest: int) -> Sequence[Row]:
        """Returns the rows whose prompts have at most `longest` tokens, or could be shortened to that."""
        truncate = self._benchmark.truncate
        starts = self._encoder.encode_unchecked(rows).column("start")
        full = starts > longest
        if not full.any():
            return rows
        if truncate is Truncate.error:
            first = int(np.flatnonzero(full)[0])
            raise self._encoder.chat.no_room_error(rows[first], int(starts[first]), longest + 1)
        if truncate is Truncate.drop:
            kept = select_items(rows, np.flatnonzero(~full))
        else:
            how = {"shortened": VERSION, "most": longest}
            kept = self._rewrite_rows(rows, how, lambda row: _shorten_prompt(row, self._encoder, longest))
        ids = row_column(rows, "id_hash")[full]
        dropped = ~np.isin(ids, row_column(kept, "id_hash"))
        self.changed_ids["dropped"].append(ids[dropped])
        self.changed_ids["shortened"].append(ids[~dropped])
        return kept

    def _count_cut(self, rows: Sequence[Row], limit: int | np.ndarray[Any, Any], counts: np.ndarray[Any, Any]) -> None:
        """Collects the rows whose responses lose their end.

        Args:
            limit: tokens that a row may have, one number or (rows,).
            counts: (rows,) bool, the rows that are looked at.
        """
        cut = (self._encoder.encode_unchecked(rows).column("full_length") > limit) & counts
        self.changed_ids["cut"].append(row_column(rows, "id_hash")[cut])

    def _are_texts(self, rows: Sequence[Row]) -> np.ndarray[Any, Any]:
        """Returns (rows,) bool, whether a row is running text without a prompt."""
        return row_column(rows, "plain") & (self._encoder.encode_unchecked(rows).column("start") == 0)

    def _split_texts(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Splits texts longer than a row may be into rows of their own; nothing of them is lost."""
        encoder, texts = self._encoder, self._are_texts(rows)
        encoded = encoder.encode_unchecked(rows)
        long = texts & (encoded.column("full_length") > encoder.limit)
        empty = texts & (encoded.column("end") < 2)  # the first id of a text is never supervised
        if not (long | empty).any():
            return rows
        ids = row_column(rows, "id_hash")
        made = self._rewrite_rows(rows, {"pieces": VERSION}, lambda row: _text_rows(row, encoder))
        self.changed_ids["split"].append(ids[long])
        self.changed_ids["empty"].append(ids[empty])
        made_ids = row_column(made, "id_hash")
        self.changed_ids["pieces"].append(made_ids[~np.isin(made_ids, ids)])
        return made

    def _rewrite_rows(
        self, rows: Sequence[Row], how: dict[str, Any], change: Callable[[Row], Iterable[Row]]
    ) -> Sequence[Row]:
        """Makes rows from each row, stored where the rows are stored.

        Args:
            how: what `change` depends on beside the rows, the chat format and its limit.
        """
        if not isinstance(rows, StoredRows):
            return tuple(new for row in rows for new in change(row))
        encoder = self._encoder
        depends_on = {**how, "rows": hash_rows(rows), "chat": encoder.chat.identity(), "limit": encoder.limit}
        return store_rows(self._cache, depends_on, lambda notes: (new for row in rows for new in change(row)))


def _text_rows(row: Row, encoder: Encoder) -> Iterator[Row]:
    """Yields a text as one row or as several, none if nothing can be learned from it; a conversation as it is."""
    tokens = len(encoder.chat.encode_text(row.response)) if row.plain and not row.prompt else None
    if tokens is None or 2 <= tokens <= encoder.limit:
        yield row
    elif tokens > encoder.limit:
        for number, text in enumerate(split_text(row.response, encoder.chat, encoder.limit)):
            # A span that two pieces share is in neither.
            spans = tuple(span for span in row.spans if span in text)
            yield dataclasses.replace(row, id=f"{row.id}/{number}", response=text, fact=row.fact_id, spans=spans)


def _shorten_prompt(row: Row, encoder: Encoder, longest: int) -> Iterator[Row]:
    """Yields the row without the fewest earlier turns, then words at the left, whose loss makes its prompt fit.

    Yields nothing if no part of the prompt fits.
    """

    def fits(changed: Row) -> bool:
        return len(encoder.chat.encode_prompt(changed)) <= longest

    while row.history and not fits(row):
        row = dataclasses.replace(row, history=row.history[1:])
    if fits(row):
        yield row
        return
    words = row.prompt.split(" ")
    first, last = 1, len(words)
    while first < last:
        middle = (first + last) // 2
        if fits(dataclasses.replace(row, prompt=" ".join(words[middle:]))):
            last = middle
        else:
            first = middle + 1
    shorter = dataclasses.replace(row, prompt=" ".join(words[first:]))
    if shorter.prompt and fits(shorter):
        yield shorter
