"""A benchmark of the user's own parts: what to forget, what to keep, and what is only measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from erulab.data.checks import check_benchmark
from erulab.data.dataset_cache import Notes
from erulab.data.measures import Answers, Separation, Texts
from erulab.data.reading import Record
from erulab.data.row_forms import USED_FIELDS, row_from_record
from erulab.data.rows import Benchmark, Role, Row, Suite, Truncate
from erulab.data.stored_rows import StoredRows, store_rows

VERSION = 4  # of how records become rows: a change makes every key new
PARTS = ("forget", "retain", "heldout", "utility", "holdout")
# Membership inference: how well a model tells texts it learned from texts it never saw.
MEMBERS, STRANGERS = "mia_forget", "mia_holdout"


def store_part(cache: Path, part: str, depends_on: dict[str, Any], records: Iterable[Record]) -> StoredRows:
    """Returns the rows of a part's records; notes hold its refusals and the fields that are not used.

    Args:
        part: names rows without an id.
        depends_on: what the records depend on, by content.
    """

    def read_rows(notes: Notes) -> Iterable[Row]:
        unused: set[str] = set()
        refusals: dict[str, None] = {}
        for number, record in enumerate(records, start=1):
            unused |= {name for name, value in record.fields.items() if value is not None} - USED_FIELDS
            row = row_from_record(part, number, record)
            if row.refusal is not None:
                refusals[row.refusal] = None
            yield row
        notes |= {"unused": sorted(unused), "refusals": list(refusals)}

    return store_rows(cache, {"own": VERSION, "part": part, **depends_on}, read_rows)


def benchmark_of_parts(
    name: str,
    rows: Mapping[str, StoredRows],
    sources: Mapping[str, str],
    *,
    refusals: Iterable[str] = (),
    max_length: int | None,
    truncate: Truncate,
    allow_overlap: bool,
) -> Benchmark:
    """Returns the checked benchmark of the parts that are there.

    Args:
        name: of the data set.
        rows: part -> its rows; forget and retain are there.
        sources: part -> what notes call its source.
        refusals: texts to choose a refusal from, beside those of the rows.
        max_length, truncate, allow_overlap: the options of these names.
    Raises:
        DataError: the parts overlap, or a row is blank or shares its id.
    """
    notes = [
        f"{sources[part]}: fields that erulab does not use: {', '.join(table.notes['unused'])}"
        for part, table in rows.items()
        if table.notes["unused"]
    ]
    suites = (
        ("forget", Role.FORGET, "paraphrase", False),
        ("heldout", Role.HELDOUT, "paraphrase", False),
        ("retain", Role.RETAIN, "paraphrase", True),
        ("utility", Role.RETAIN, "answer", True),
    )
    membership: tuple[Suite, ...] = ()
    if "holdout" in rows:
        membership = (
            Suite(MEMBERS, Role.FORGET, rows["forget"], Texts()),
            Suite(STRANGERS, Role.UNSEEN, rows["holdout"], Texts()),
        )
    benchmark = Benchmark(
        name=name,
        forget=rows["forget"],
        retain=rows["retain"],
        target_rows=StoredRows.concatenate([rows["forget"], rows["retain"]]),
        oracle_rows=rows["retain"],
        suites=(
            *(
                Suite(part, role, rows[part], Answers(right), in_utility)
                for part, role, right, in_utility in suites
                if part in rows
            ),
            *membership,
        ),
        summaries=(Separation("mia", MEMBERS, STRANGERS),) if membership else (),
        # The few texts to choose a refusal from are kept in memory.
        refusals=tuple(
            dict.fromkeys((*(text for table in rows.values() for text in table.notes["refusals"]), *refusals))
        ),
        max_length=max_length,
        truncate=truncate,
        notes=tuple(notes),
    )
    return check_benchmark(benchmark, allow_overlap=allow_overlap)
