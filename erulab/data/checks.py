"""Checks of a benchmark's rows, which every reader of files makes before a model is loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import lazy_loader

from erulab.data.measures import Generated, Overlap
from erulab.data.rows import Benchmark, Role, Row
from erulab.data.stored_rows import hash_rows, row_column
from erulab.errors import DataError

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_loader.load("numpy")

log = logging.getLogger(__name__)

COMPARED_ROWS = 65536  # hashes of a part that are looked up together


def check_benchmark(
    benchmark: Benchmark,
    *,
    key: str = "dataset",
    allow_overlap: bool = False,
    needed: Sequence[str] = ("forget", "retain"),
) -> Benchmark:
    """Checks a data set that is unlearned, and adds notes on what a reader of the report must know.

    Args:
        key: of its options, for messages.
        allow_overlap: accepts, with a note, forget rows that are retain rows too, held-out rows that are forget rows
            too, and rows of unseen suites that are either.
        needed: the sets that must not be empty; a stage that needs another set says so.
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
        overlap = _describe_overlap(name, rows, parts)
        if overlap and not allow_overlap:
            raise DataError(
                f"data set {benchmark.name}: {overlap} with {other} rows (same prompt and response); remove them, or "
                f"type {key}.allow_overlap=true to go on with a note in the report"
            )
        if overlap:
            notes.append(f"{overlap} with {other} rows")
        if alike := _describe_overlap(name, rows, parts, alike=True):
            notes.append(f"{alike} with {other} rows but for case or punctuation")
    return _add_notes(benchmark, notes)


def check_suites(benchmark: Benchmark) -> Benchmark:
    """Checks a benchmark that only measures, and adds notes on duplicates.

    Raises:
        DataError: a blank text, or two rows of one id.
    """
    notes = []
    for name, rows, may_be_blank in _list_sets(benchmark):
        blank = np.flatnonzero(row_column(rows, "blank"))
        if len(blank) and not may_be_blank:
            raise DataError(
                f"data set {benchmark.name}, {name}: {_count_rows(rows, blank)} an empty prompt or response; nothing "
                "could be learned"
            )
        ids = row_column(rows, "id_hash")
        repeated = _repeated_hashes(ids)
        if len(repeated):
            firsts = sorted(int(np.flatnonzero(ids == twice)[0]) for twice in np.unique(repeated))
            raise DataError(
                f"data set {benchmark.name}, {name}: {_count_rows(rows, firsts)} an id that another row has too"
            )
        doubles = len(_repeated_hashes(row_column(rows, "content_hash")))
        if doubles:
            notes.append(f"{name}: {doubles} of {len(rows)} rows are duplicates (same prompt and response)")
    return _add_notes(benchmark, notes)


def content_identity(benchmark: Benchmark) -> str:
    """Hashes every row, suite and refusal: what a run reads, wherever it was read from."""
    suites = [
        (suite.name, suite.role, hash_rows(suite.rows), suite.measure, suite.in_utility) for suite in benchmark.suites
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
        others += (tuple((one.name, one.continues, hash_rows(one.forget)) for one in benchmark.requests),)
    return hashlib.sha256(repr((suites, [hash_rows(part) for part in parts], others)).encode()).hexdigest()[:32]


def _add_notes(benchmark: Benchmark, notes: Sequence[str]) -> Benchmark:
    for note in notes:
        log.warning("data set %s: %s", benchmark.name, note)
    return dataclasses.replace(benchmark, notes=(*benchmark.notes, *notes))


def _list_sets(benchmark: Benchmark) -> list[tuple[str, Sequence[Row], bool]]:
    """Lists name and rows of each set, and whether its responses may be empty: fluency compares with none."""
    sets = {"forget": benchmark.forget, "retain": benchmark.retain}
    listed = [(name, rows, False) for name, rows in sets.items()]
    for suite in benchmark.suites:
        # A suite that evaluates the forget or retain set itself is not reported twice.
        if not any(suite.rows is rows for rows in sets.values()):
            free = isinstance(suite.measure, Generated) and suite.measure.overlap is Overlap.entropy
            listed.append((f"suite {suite.name}", suite.rows, free))
    return listed


def _repeated_hashes(hashes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns the hashes that occur before, each as often as it does, sorted."""
    ordered = np.sort(hashes)
    return ordered[1:][ordered[1:] == ordered[:-1]]


def _describe_overlap(name: str, rows: Sequence[Row], parts: Sequence[Sequence[Row]], *, alike: bool = False) -> str:
    """Describes the rows of `rows` that also occur in `parts`; "" where none do.

    Args:
        alike: only rows that occur with other case or punctuation, and not as they are.
    """
    if not rows or not parts:
        return ""
    shared = _are_shared(rows, parts, "words_hash" if alike else "content_hash")
    if alike and shared.any():
        shared &= ~_are_shared(rows, parts, "content_hash")
    found = np.flatnonzero(shared)
    if not len(found):
        return ""
    return f"{len(found)} of {len(rows)} {name} rows ({', '.join(rows[int(i)].id for i in found[:3])}) overlap"


def _are_shared(rows: Sequence[Row], parts: Sequence[Sequence[Row]], column: str) -> np.ndarray[Any, Any]:
    """Returns whether each of `rows` occurs in `parts`, (rows,).

    Memory: one sorted copy of the hashes of `rows`.
    """
    known = row_column(rows, column)
    ordered = np.sort(known)
    shared = np.zeros(len(ordered), bool)
    for part in parts:
        hashes = row_column(part, column)
        for first in range(0, len(hashes), COMPARED_ROWS):
            piece = hashes[first : first + COMPARED_ROWS]
            places = np.searchsorted(ordered, piece).clip(max=len(ordered) - 1)
            shared[places[ordered[places] == piece]] = True
    return np.isin(known, ordered[shared])


def _count_rows(rows: Sequence[Row], indices: Sequence[int] | np.ndarray[Any, Any]) -> str:
    """Returns text such as "2 rows have (id, id)", with up to three ids."""
    ids, more = [rows[int(i)].id for i in indices[:3]], ", ..." if len(indices) > 3 else ""
    return f"{len(indices)} {'row has' if len(indices) == 1 else 'rows have'} ({', '.join(ids)}{more})"
