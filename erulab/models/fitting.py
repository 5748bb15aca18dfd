"""Rows that a model can read: prompts that leave room for a response, and a count of what was cut."""

from __future__ import annotations

import dataclasses
import logging

from erulab.data.rows import Benchmark, Row, Truncate
from erulab.errors import DataError
from erulab.models.chat import ChatFormat

log = logging.getLogger(__name__)


def fitted(benchmark: Benchmark, chat: ChatFormat) -> Benchmark:
    """The benchmark with every prompt short enough, by `benchmark.truncate`; notes tell what was changed.

    error: a prompt that fills the context is a fault; drop: its row goes; left: the prompt loses words at its
    beginning. Responses longer than what is left are cut at their end by the encoding, and counted here.

    Raises:
        DataError: a prompt does not fit under truncate=error, or no row is left.
    """
    changed: dict[str, Row | None] = {}
    cut = 0
    for row in _rows(benchmark):
        if row.id in changed:
            continue
        changed[row.id] = _fitted_row(row, benchmark, chat)
        kept = changed[row.id]
        cut += kept is not None and not chat.fits(kept.prompt, kept.response, benchmark.max_length)
    dropped = sum(row is None for row in changed.values())
    shortened = sum(row is not None and row.prompt != old.prompt for row, old in _changes(benchmark, changed))
    notes = [
        note for count, note in (
            (dropped, f"{dropped} rows dropped: their prompts fill the {chat.limit(benchmark.max_length)} tokens"),
            (shortened, f"{shortened} prompts shortened at their beginning"),
            (cut, f"{cut} responses cut at their end: they lose their end-of-turn token"),
        ) if count
    ]  # fmt: skip
    for note in notes:
        log.warning("%s", note)
    if not notes:
        return benchmark
    made = dataclasses.replace(
        benchmark,
        forget=_apply(benchmark.forget, changed),
        retain=_apply(benchmark.retain, changed),
        target_rows=_apply(benchmark.target_rows, changed),
        oracle_rows=_apply(benchmark.oracle_rows, changed),
        suites=tuple(dataclasses.replace(suite, rows=_apply(suite.rows, changed)) for suite in benchmark.suites),
        notes=(*benchmark.notes, *notes),
    )
    if not made.forget or not all(suite.rows for suite in made.suites):
        raise DataError(f"{notes[0]}, and a part of the data set has 0 rows left; raise dataset.max_length")
    return made


def _fitted_row(row: Row, benchmark: Benchmark, chat: ChatFormat) -> Row | None:
    if chat.has_room(row.prompt, benchmark.max_length):
        return row
    if benchmark.truncate is Truncate.drop:
        return None
    if benchmark.truncate is Truncate.left:
        words = row.prompt.split(" ")
        # The fewest words from the left whose loss makes room.
        first, last = 1, len(words)
        while first < last:
            middle = (first + last) // 2
            if chat.has_room(" ".join(words[middle:]), benchmark.max_length):
                last = middle
            else:
                first = middle + 1
        shorter = " ".join(words[first:])
        if shorter and chat.has_room(shorter, benchmark.max_length):
            return dataclasses.replace(row, prompt=shorter)
        return None
    chat.encode(row.id, row.prompt, row.response, max_length=benchmark.max_length)  # raises, naming the row
    return row


def _rows(benchmark: Benchmark) -> list[Row]:
    parts = (benchmark.forget, benchmark.retain, benchmark.target_rows, benchmark.oracle_rows)
    return [row for part in (*parts, *(suite.rows for suite in benchmark.suites)) for row in part]


def _changes(benchmark: Benchmark, changed: dict[str, Row | None]) -> list[tuple[Row | None, Row]]:
    return [(changed[row_id], row) for row_id, row in {row.id: row for row in _rows(benchmark)}.items()]


def _apply(rows: tuple[Row, ...], changed: dict[str, Row | None]) -> tuple[Row, ...]:
    """The rows that are kept, with the prompts they have now."""
    kept = []
    for row in rows:
        new = changed[row.id]
        if new is not None:
            kept.append(dataclasses.replace(row, prompt=new.prompt))
    return tuple(kept)
