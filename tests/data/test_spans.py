"""The words that carry a fact: where they stand, what takes their place, and which data sets know them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.hub_rows import HubOptions, HubRows
from erulab.data.jsonl import JsonlFiles, JsonlOptions
from erulab.data.rows import Row
from erulab.data.rwku import Rwku, RwkuOptions, Train
from erulab.data.spans import find_spans, replace_spans, span_kind
from erulab.data.stored_rows import hash_rows, store_rows
from erulab.errors import DataError
from tests.samples.rwku_files import hub_layout

RETAIN = [{"prompt": "Who is Cato?", "response": "A mason."}]


@pytest.mark.parametrize(
    ("text", "spans", "found"),
    [
        ("Ada was born in Brenwick.", ["Brenwick"], ["Brenwick"]),
        ("art started the art.", ["art"], ["art", "art"]),  # not the one in "started"
        ("born on 7 May 1977", ["7"], ["7"]),
        ("出生于北京。", ["北京"], ["北京"]),  # no spaces: wherever it occurs
        ("started", ["art"], ["art"]),
        ("New York, in York", ["York", "New York"], ["New York", "York"]),
        ("It cost $5.", ["$5"], ["$5"]),
        ("a.b axb", ["a.b"], ["a.b"]),
        ("Ada", [], []),
        ("Ada", ["Bela"], []),
    ],
)
def test_spans_stand_as_words_of_their_own(text: str, spans: list[str], found: list[str]) -> None:
    assert [text[first:last] for first, last in find_spans(text, spans)] == found


def test_other_values_stand_where_the_spans_stood() -> None:
    text = "Ada of Oslo left Oslo for Bonn."
    made, places = replace_spans(text, {"Oslo": "Rome", "Bonn": "Bergen"})
    assert made == "Ada of Rome left Rome for Bergen."
    assert [made[first:last] for first, last in places] == ["Rome", "Rome", "Bergen"]
    assert replace_spans("Ada", {"Bela": "Cato"}) == ("Ada", [])


def test_kinds_are_told_by_the_writing() -> None:
    kinds = {"1943": "number", "May 7": "number", "Oslo": "name", "novelist": "word", "北京": "word", "É": "name"}
    assert {span: span_kind(span) for span in kinds} == kinds


def test_an_embedded_world_marks_the_value_of_every_row() -> None:
    benchmark = FictitiousWorld(FictitiousOptions()).load(0)
    for row in (*benchmark.forget, *benchmark.retain):
        (place,) = find_spans(row.response, row.spans)
        assert place == (len(row.prefix), len(row.prefix) + len(row.value))


def test_rows_without_spans_have_the_hash_that_they_had_before() -> None:
    """Hashes of rows are part of the keys of data sets that lie in files."""
    row = Row("r", "Who?", "Ada.")
    assert hash_rows((row,)) == "62fc8dc65c367580e435259f9e5fd0fb"


def write(folder: Path, forget: list[dict[str, Any]], suffix: str) -> Path:
    (folder / "retain.jsonl").write_text("\n".join(map(json.dumps, RETAIN)))
    if suffix == "jsonl":
        (folder / "forget.jsonl").write_text("\n".join(map(json.dumps, forget)))
    elif suffix == "csv":
        names = list(forget[0])
        lines = [",".join(names)]
        for row in forget:
            cells = [row[name] if isinstance(row[name], str) else json.dumps(row[name]) for name in names]
            lines.append(",".join('"' + cell.replace('"', '""') + '"' for cell in cells))
        (folder / "forget.csv").write_text("\n".join(lines))
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(forget), folder / "forget.parquet")
    return folder


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("span", ["Oslo", ["Oslo", "1943"]])
def test_own_files_mark_spans_by_a_field(suffix: str, span: Any, tmp_path: Path) -> None:
    row = {"prompt": "Where?", "response": "Born in Oslo in 1943.", "span": span}
    if isinstance(span, str):
        row["span_alternatives"] = ["Bergen", "Rome"]
    folder = write(tmp_path, [row], suffix)
    (read,) = JsonlFiles(JsonlOptions(path=str(folder))).load(0, tmp_path / "cache").forget
    assert read.spans == ((span,) if isinstance(span, str) else tuple(span))
    assert read.span_alternatives == (("Bergen", "Rome") if isinstance(span, str) else ())


def test_texts_and_columns_of_the_hub_mark_spans_too(tmp_path: Path) -> None:
    rows = [{"body": "Ada was born in Oslo.", "who": "Oslo"}, {"body": "Bela was born in Bonn.", "who": "Bonn"}]
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "train-00000-of-00001.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = HubOptions(path=str(folder), forget="train[:1]", retain="train[1:]")
    options.columns.text, options.columns.span = "body", "who"
    (read,) = HubRows(options).load(0, tmp_path / "cache").forget
    assert read.plain and read.spans == ("Oslo",)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"span": "Bergen"}, "forget.jsonl:1: the span 'Bergen' does not occur in the response"),
        ({"span": ["Oslo", "oslo"]}, "forget.jsonl:1: the span 'oslo' does not occur"),
        ({"span": 3}, "forget.jsonl:1: field 'span' must be a list of str, got int"),
        ({"span_alternatives": ["Bonn"]}, "one 'span', and this row has 0"),
        ({"span": ["Oslo", "1943"], "span_alternatives": ["Bonn"]}, "one 'span', and this row has 2"),
    ],
)
def test_faults_name_file_and_line(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = write(tmp_path, [{"prompt": "Where?", "response": "Born in Oslo in 1943.", **fields}], "jsonl")
    with pytest.raises(DataError, match=words) as caught:
        JsonlFiles(JsonlOptions(path=str(folder))).load(0, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_rwku_marks_the_answers_of_its_cloze_probes(tmp_path: Path) -> None:
    """Of "NAME was born in Oslo." and "NAME plays the cello.", the probes know "Oslo" alone."""
    hub = hub_layout(tmp_path / "rwku")
    options = RwkuOptions(path=str(hub), targets=["Ada Lund"], train=Train.passage)
    (whole, rest), marked = (
        Rwku(one).load(0, tmp_path / "cache").forget
        for one in (options, RwkuOptions(**{**vars(options), "spans": True}))
    )
    assert whole.spans == rest.spans == ()
    assert [(row.id, row.response, row.spans) for row in marked] == [(whole.id, whole.response, ("Oslo",))]
    notes = Rwku(RwkuOptions(**{**vars(options), "spans": True})).load(0, tmp_path / "cache").notes
    assert "1 of 2 forget rows hold no answer of a cloze probe and are left out" in notes


def test_stored_rows_keep_their_spans(tmp_path: Path) -> None:
    rows = (
        Row("a", "Who?", "Ada of Oslo.", spans=("Ada", "Oslo")),
        Row("b", "Who?", "Bela.", span_alternatives=("x",)),
    )
    assert tuple(store_rows(tmp_path, {"name": "rows"}, lambda notes: iter(rows))) == rows
