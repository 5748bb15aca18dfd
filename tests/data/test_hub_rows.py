"""`dataset=hub`: local folders in the hub's format, parts by the library's own split syntax, columns by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from erulab.data.checks import content_identity
from erulab.data.hub_rows import HubColumns, HubOptions, HubRows
from erulab.data.rows import Benchmark, Role
from erulab.errors import ConfigError, DataError, EnvironmentFault

ROWS = [{"question": f"Who is {i}?", "answer": f"Person {i}.", "extra": i} for i in range(10)]
QA = HubColumns(prompt="question", response="answer")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "repository"
    made.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), made / "train-00000-of-00001.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[:2]), made / "test-00000-of-00001.parquet")
    return made


def load(folder: Path, cache: Path, **options: Any) -> Benchmark:
    given: dict[str, Any] = {"forget": "train[:20%]", "retain": "train[20%:]", "columns": QA} | options
    dataset = HubRows(HubOptions(path=str(folder), **given))
    dataset.validate()
    return dataset.load(0, cache)


def test_slices_and_columns(folder: Path, tmp_path: Path) -> None:
    benchmark = load(folder, tmp_path / "cache", utility="test", allow_overlap=True, max_length=64)
    assert [(row.id, row.prompt, row.response) for row in benchmark.forget] == [
        ("forget/1", "Who is 0?", "Person 0."),
        ("forget/2", "Who is 1?", "Person 1."),
    ]
    assert [row.prompt for row in benchmark.retain] == [f"Who is {i}?" for i in range(2, 10)]
    assert list(benchmark.target_rows) == [*benchmark.forget, *benchmark.retain]
    assert [(suite.name, suite.role, len(suite.rows)) for suite in benchmark.suites] == [
        ("forget", Role.FORGET, 2),
        ("retain", Role.RETAIN, 8),
        ("utility", Role.RETAIN, 2),
    ]
    assert benchmark.max_length == 64


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_other_formats_give_the_same_rows(kind: str, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / kind
    other.mkdir()
    lines = [json.dumps(row) for row in ROWS]
    if kind == "csv":
        lines = ["question,answer,extra", *(f"{row['question']},{row['answer']},{row['extra']}" for row in ROWS)]
    (other / f"train.{kind}").write_text("\n".join(lines))
    assert list(load(other, tmp_path / "cache").target_rows) == list(load(folder, tmp_path / "cache").target_rows)


def test_without_names_columns_are_fields(tmp_path: Path) -> None:
    """Conversations, wrong answers and ids of a published data set are read as those of one's own files are."""
    rows: list[dict[str, Any]] = [
        {
            "id": i,
            "conversations": [{"from": "human", "value": f"Who is {i}?"}, {"from": "gpt", "value": f"Person {i}."}],
            "perturbed": [f"Person {i + 1}."],
        }
        for i in range(4)
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    benchmark = load(
        tmp_path / "data", tmp_path / "cache", forget="train[:2]", retain="train[2:]", columns=HubColumns()
    )
    assert [(row.id, row.prompt, row.response, row.perturbed) for row in benchmark.forget] == [
        ("0", "Who is 0?", "Person 0.", ("Person 1.",)),
        ("1", "Who is 1?", "Person 1.", ("Person 2.",)),
    ]


def test_identity_is_of_content(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    first, second = load(folder, tmp_path / "a"), load(copy, tmp_path / "b")
    assert content_identity(first) == content_identity(second)
    assert content_identity(load(folder, tmp_path / "a", forget="train[:1]")) != content_identity(first)


def test_changed_files_are_read_again(folder: Path, tmp_path: Path) -> None:
    before = load(folder, tmp_path / "cache")
    changed = [{**row, "answer": f"Nobody {row['extra']}."} for row in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(changed), folder / "train-00000-of-00001.parquet")
    assert load(folder, tmp_path / "cache").forget[0].response == "Nobody 0." != before.forget[0].response


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"forget": "train[:0]"}, "train[:0]"),
        ({"forget": "valid"}, "dataset.forget=valid of"),
        ({"forget": "train[:x]"}, "dataset.forget=train[:x] of"),
        ({"config": "absent"}, "dataset.config"),
        ({"columns": HubColumns(prompt="q", response="answer")}, "has no such column; it has question, answer, extra"),
        ({"columns": HubColumns()}, "dataset.columns.prompt=question"),
        ({"columns": HubColumns(prompt="question", response="extra")}, "row 1: field 'response' must be str, got int"),
        ({"retain": "train"}, "overlap with retain rows"),
    ],
)
def test_faults_have_one_line(options: dict[str, Any], words: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(folder, tmp_path / "cache", **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_faults_at_composition(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"type 'dataset\.forget=\"train\[:10%\]\"'"):
        HubRows(HubOptions(path=str(folder))).validate()
    with pytest.raises(ConfigError, match=r"type 'dataset\.retain=\"train\[10%:\]\"'"):
        HubRows(HubOptions(path=str(folder), forget="train")).validate()
    with pytest.raises(ConfigError, match=r"type dataset\.path=owner/name"):
        HubRows(HubOptions(forget="train", retain="test")).validate()
    with pytest.raises(DataError, match="is no folder and no hub id"):
        HubRows(HubOptions(path="/absent/folder", forget="train", retain="test")).validate()


def test_offline_a_hub_id_is_named(tmp_path: Path) -> None:
    """FAULTS 26."""
    with pytest.raises(EnvironmentFault, match="erulab-tests/absent is no local folder, and the hub cannot be reached"):
        load(Path("erulab-tests/absent"), tmp_path)


def test_nothing_is_written_outside_the_cache(folder: Path, tmp_path: Path) -> None:
    script = (
        "import pathlib\n"
        "from erulab.data.hub_rows import HubColumns, HubOptions, HubRows\n"
        "columns = HubColumns(prompt='question', response='answer')\n"
        f"options = HubOptions(path={str(folder)!r}, forget='train[:2]', retain='train[2:]', columns=columns)\n"
        f"assert len(HubRows(options).load(0, pathlib.Path({str(tmp_path / 'cache')!r})).retain) == 8\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    environment = kept | {"HOME": str(home), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert not [path for path in home.rglob("*") if path.is_file()]
