"""What must hold of any benchmark before a model is loaded: checked once, by every reader of files."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections import Counter
from collections.abc import Iterable

from erulab.data.rows import Benchmark, Role, Row
from erulab.errors import DataError

log = logging.getLogger(__name__)


def check(benchmark: Benchmark, *, allow_overlap: bool = False) -> Benchmark:
    """The benchmark, with notes on what a reader of the report must know.

    Args:
        allow_overlap: forget rows may also be retain rows, and held-out rows may be forget rows; noted.
    Raises:
        DataError: an empty set, a blank text, two rows of one id, or an overlap; names up to three rows.
    """
    for name, rows in (("forget", benchmark.forget), ("retain", benchmark.retain)):
        if not rows:
            raise DataError(f"data set {benchmark.name}: the {name} set has 0 rows; it needs at least 1")
    notes = list(benchmark.notes)
    for name, rows in _parts(benchmark):
        _check_texts(benchmark, name, rows)
        _check_ids(benchmark, name, rows)
        doubles = len(rows) - len({_content(row) for row in rows})
        if doubles:
            notes.append(f"{name}: {doubles} of {len(rows)} rows are duplicates (same prompt and response)")
    heldout = tuple(row for suite in benchmark.suites if suite.role is Role.HELDOUT for row in suite.rows)
    for name, rows in (("retain", benchmark.retain), ("the oracle's", benchmark.oracle_rows), ("held-out", heldout)):
        overlap = _overlap(benchmark.forget, rows)
        if overlap and not allow_overlap:
            raise DataError(
                f"data set {benchmark.name}: {overlap} with {name} rows (same prompt and response); remove them, or "
                "type dataset.allow_overlap=true to go on with a note in the report"
            )
        if overlap:
            notes.append(f"{overlap} with {name} rows")
    for note in notes:
        log.warning("data set %s: %s", benchmark.name, note)
    return dataclasses.replace(benchmark, notes=tuple(notes))


def content_identity(benchmark: Benchmark) -> str:
    """Hash of every row, suite and refusal: what a run reads, wherever it was read from."""
    return hashlib.sha256(repr(dataclasses.replace(benchmark, notes=())).encode()).hexdigest()[:32]


def _parts(benchmark: Benchmark) -> list[tuple[str, tuple[Row, ...]]]:
    suites = [(f"suite {suite.name}", suite.rows) for suite in benchmark.suites]
    sets = {"forget": benchmark.forget, "retain": benchmark.retain}
    # A suite that evaluates the forget or retain set itself is not reported twice.
    return [*sets.items(), *[(name, rows) for name, rows in suites if rows not in sets.values()]]


def _check_texts(benchmark: Benchmark, name: str, rows: tuple[Row, ...]) -> None:
    blank = [row.id for row in rows if not row.prompt.strip() or not row.response.strip()]
    if blank:
        raise DataError(
            f"data set {benchmark.name}, {name}: {_some(blank)} an empty prompt or response; nothing could be learned"
        )


def _check_ids(benchmark: Benchmark, name: str, rows: tuple[Row, ...]) -> None:
    twice = [row_id for row_id, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        raise DataError(f"data set {benchmark.name}, {name}: {_some(twice)} an id that another row has too")


def _overlap(forget: tuple[Row, ...], rows: Iterable[Row]) -> str:
    known = {_content(row) for row in rows}
    shared = [row.id for row in forget if _content(row) in known]
    return f"{len(shared)} of {len(forget)} forget rows ({', '.join(shared[:3])}) overlap" if shared else ""


def _some(ids: list[str]) -> str:
    more = ", ..." if len(ids) > 3 else ""
    return f"{len(ids)} {'row has' if len(ids) == 1 else 'rows have'} ({', '.join(ids[:3])}{more})"


def _content(row: Row) -> tuple[str, str]:
    return row.prompt, row.response
