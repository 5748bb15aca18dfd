"""What must hold of any benchmark before a model is loaded: checked once, by every reader of files."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import lazy_loader

from erulab.data.measures import Generated, Overlap
from erulab.data.rows import Benchmark, Role, Row
from erulab.data.sequences import CHUNK
from erulab.data.tables import field_of, rows_hash
from erulab.errors import DataError

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_loader.load("numpy")

log = logging.getLogger(__name__)


def check(
    benchmark: Benchmark,
    *,
    key: str = "dataset",
    allow_overlap: bool = False,
    needed: Sequence[str] = ("forget", "retain"),
) -> Benchmark:
    """A data set that is unlearned, with notes on what a reader of the report must know.

    Args:
        key: of its options, for messages.
        allow_overlap: forget rows may also be retain rows, held-out rows may be forget rows, and rows that nobody is
            to have seen may be either; noted.
        needed: the sets that must not be empty; a stage that needs another one says so.
    Raises:
        DataError: an empty set, a blank text, two rows of one id, or an overlap; names up to three rows.
    """
    for name, rows in (("forget", benchmark.forget), ("retain", benchmark.retain)):
        if not rows and name in needed:
            raise DataError(f"data set {benchmark.name}: the {name} set has 0 rows; it needs at least 1")
    benchmark = check_suites(benchmark)
    notes = []
    heldout = [suite.rows for suite in benchmark.suites if suite.role is Role.HELDOUT]
    learned = [benchmark.target_rows, benchmark.oracle_rows, benchmark.forget, benchmark.retain]
    compared = [
        ("forget", benchmark.forget, "retain", [benchmark.retain]),
        ("forget", benchmark.forget, "the oracle's", [benchmark.oracle_rows]),
        ("forget", benchmark.forget, "held-out", heldout),
        *[(suite.name, suite.rows, "learned", learned) for suite in benchmark.suites if suite.role is Role.UNSEEN],
    ]
    for name, rows, other, parts in compared:
        overlap = _overlap(name, rows, parts)
        if overlap and not allow_overlap:
            raise DataError(
                f"data set {benchmark.name}: {overlap} with {other} rows (same prompt and response); remove them, or "
                f"type {key}.allow_overlap=true to go on with a note in the report"
            )
        if overlap:
            notes.append(f"{overlap} with {other} rows")
    return _noted(benchmark, notes)


def check_suites(benchmark: Benchmark) -> Benchmark:
    """What must hold of a benchmark that only measures: the benchmark, with notes on duplicates.

    Raises:
        DataError: a blank text, or two rows of one id.
    """
    notes = []
    for name, rows, blanks in _parts(benchmark):
        if not blanks:
            _check_texts(benchmark, name, rows)
        _check_ids(benchmark, name, rows)
        doubles = len(_repeated(field_of(rows, "content")))
        if doubles:
            notes.append(f"{name}: {doubles} of {len(rows)} rows are duplicates (same prompt and response)")
    return _noted(benchmark, notes)


def content_identity(benchmark: Benchmark) -> str:
    """Hash of every row, suite and refusal: what a run reads, wherever it was read from."""
    suites = [
        (suite.name, suite.role, rows_hash(suite.rows), suite.measure, suite.in_utility) for suite in benchmark.suites
    ]
    parts = [benchmark.forget, benchmark.retain, benchmark.target_rows, benchmark.oracle_rows]
    others: tuple[object, ...] = (
        benchmark.name,
        benchmark.summaries,
        benchmark.refusals,
        benchmark.max_length,
        benchmark.truncate,
    )
    if benchmark.requests:
        others += (tuple((one.name, one.continues, rows_hash(one.forget)) for one in benchmark.requests),)
    return hashlib.sha256(repr((suites, [rows_hash(part) for part in parts], others)).encode()).hexdigest()[:32]


def _noted(benchmark: Benchmark, notes: Sequence[str]) -> Benchmark:
    for note in notes:
        log.warning("data set %s: %s", benchmark.name, note)
    return dataclasses.replace(benchmark, notes=(*benchmark.notes, *notes))


def _parts(benchmark: Benchmark) -> list[tuple[str, Sequence[Row], bool]]:
    """Name and rows of each set, and whether its responses may be empty: fluency has none to compare with."""
    sets = {"forget": benchmark.forget, "retain": benchmark.retain}
    parts = [(name, rows, False) for name, rows in sets.items()]
    for suite in benchmark.suites:
        # One that evaluates the forget or retain set itself is not reported twice.
        if not any(suite.rows is rows for rows in sets.values()):
            free = isinstance(suite.measure, Generated) and suite.measure.overlap is Overlap.entropy
            parts.append((f"suite {suite.name}", suite.rows, free))
    return parts


def _check_texts(benchmark: Benchmark, name: str, rows: Sequence[Row]) -> None:
    blank = np.flatnonzero(field_of(rows, "blank"))
    if len(blank):
        raise DataError(
            f"data set {benchmark.name}, {name}: {_some(rows, blank)} an empty prompt or response; nothing could be "
            "learned"
        )


def _check_ids(benchmark: Benchmark, name: str, rows: Sequence[Row]) -> None:
    ids = field_of(rows, "id")
    repeated = _repeated(ids)
    if len(repeated):
        firsts = [int(np.flatnonzero(ids == twice)[0]) for twice in np.unique(repeated)]
        raise DataError(
            f"data set {benchmark.name}, {name}: {_some(rows, sorted(firsts))} an id that another row has too"
        )


def _repeated(hashes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Every hash but the first of those that are equal."""
    ordered = np.sort(hashes)
    return ordered[1:][ordered[1:] == ordered[:-1]]


def _overlap(name: str, rows: Sequence[Row], parts: Sequence[Sequence[Row]]) -> str:
    """Which rows of a set are rows of the parts too; the one sorted copy there is in memory is of the set."""
    if not rows or not parts:
        return ""
    known = field_of(rows, "content")
    ordered = np.sort(known)
    shared = np.zeros(len(ordered), bool)
    for part in parts:
        hashes = field_of(part, "content")
        for first in range(0, len(hashes), CHUNK):
            piece = hashes[first : first + CHUNK]
            places = np.searchsorted(ordered, piece).clip(max=len(ordered) - 1)
            shared[places[ordered[places] == piece]] = True
    if not shared.any():
        return ""
    found = np.flatnonzero(np.isin(known, ordered[shared]))
    return f"{len(found)} of {len(rows)} {name} rows ({', '.join(rows[int(i)].id for i in found[:3])}) overlap"


def _some(rows: Sequence[Row], indices: Sequence[int] | np.ndarray[Any, Any]) -> str:
    ids, more = [rows[int(i)].id for i in indices[:3]], ", ..." if len(indices) > 3 else ""
    return f"{len(indices)} {'row has' if len(indices) == 1 else 'rows have'} ({', '.join(ids)}{more})"
