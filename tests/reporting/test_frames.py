"""Results as data: names, types and values of frames; filter, sort and columns; the files that are written."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from scipy import stats

from erulab import report
from erulab.errors import ConfigError
from erulab.reporting import arm_tables, load_runs
from erulab.reporting.best import best_places
from erulab.reporting.frames import FRAMES, data_file, filtered, pandas_frame
from erulab.reporting.frames.frame import Frame, make_column
from tests.reporting.conftest import MakeRun
from tests.reporting.test_arms import K, folders

SMALL = Frame(
    {
        "name": make_column(["a", "B", "c"]),
        "n": make_column([3, None, 1]),
        "x": make_column([0.5, 0.25, None], is_figure=True),
        "on": make_column([True, False, None]),
    },
    ("name", "n"),
    ("name",),
)


def names(*filters: str) -> list[Any]:
    return list(filtered(SMALL, filters).columns["name"].values)


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (["name=a,c"], "ac"),
        (["name!=a"], "Bc"),
        (["x<0.5"], "B"),
        (["x<=5e-1"], "aB"),
        ([" x >= 0.3 "], "a"),
        (["n=3,1", "n>1"], "a"),
        (["n!=3"], "Bc"),
        (["n==1.0"], "c"),
        (["on=true"], "a"),
        (["on!=true"], "Bc"),
        (["name=z"], ""),
    ],
)
def test_filters(filters: list[str], left: str) -> None:
    assert "".join(names(*filters)) == left


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nmae=a", "near: name"),
        ("name<3", "no numbers"),
        ("x<low", "holds numbers, got 'low'"),
        ("x=nan", "holds numbers"),
        ("on=yes", "true and false"),
        ("x", "cannot be read"),
        ("=3", "cannot be read"),
        ("__import__('os')<1", "no column"),
    ],
)
def test_a_filter_that_cannot_be_used_gets_one_line(text: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as caught:
        names(text)
    assert "\n" not in str(caught.value)


def test_rows_without_a_value_are_last_in_both_orders() -> None:
    assert SMALL.sorted_by("n").columns["name"].values == ("c", "a", "B")
    assert SMALL.sorted_by("-n").columns["name"].values == ("a", "c", "B")
    assert SMALL.sorted_by("name").columns["name"].values == ("a", "B", "c")


def test_columns_have_one_type() -> None:
    assert [make_column(v).kind for v in ([1, 2], [1, 2.5], [True], [1, "a"], [True, 1], [])] == [
        *(int, float, bool, str, str, str)
    ]
    assert make_column([1, "a", [2], None]).values == ("1", "a", "[2]", None)


def test_files_are_read_by_others_with_the_same_values(make_run: MakeRun) -> None:
    runs = load_runs(folders(make_run, worlds=2))
    frame = FRAMES["runs"](runs)
    rows = [json.loads(line) for line in map(json.dumps, json.loads(data_file(frame, "json")))]
    assert [row["run"] for row in rows] == ["eru-0", "npo-0", "eru-1", "npo-1"]
    npo = rows[1]
    assert (npo["method"], npo["dataset.world"], npo["knowledge_left"]) == ("npo", 0, K["npo"][0])
    assert (npo["knowledge_left_low"], npo["forget/n"], npo["collapsed"]) == (-0.03, 200, False)
    assert npo["attack/relearn/knowledge_left"] is None and rows[0]["attack/worst/name"] == "relearn"
    assert "trainer.lr" not in npo and "trainer.lr" in frame.columns  # all runs have the same
    table = parquet.read_table(io.BytesIO(data_file(frame, "parquet")))
    assert table.to_pylist() == rows
    assert {str(table.schema.field(name).type) for name in ("seed", "forget/n")} == {"int64"}
    typed = list(csv.DictReader(io.StringIO(data_file(frame, "csv").decode())))
    assert [float(row["knowledge_left"]) for row in typed] == [row["knowledge_left"] for row in rows]
    assert typed[1]["attack/relearn/knowledge_left"] == "" and typed[0]["collapsed"] == "false"
    kinds = pandas_frame(frame).dtypes
    assert (str(kinds["knowledge_left"]), str(kinds["seed"]), str(kinds["collapsed"])) == (
        "float64",
        "Int64",
        "boolean",
    )


def test_arms_and_differences_are_those_of_the_report(make_run: MakeRun) -> None:
    runs = load_runs(folders(make_run))
    arms, differences = (json.loads(data_file(FRAMES[rows](runs), "json")) for rows in ("arms", "differences"))
    low, high = stats.t.interval(0.95, 2, loc=0.92 / 3, scale=stats.sem(K["npo"]))
    npo = arms[1]
    assert (npo["arm"], npo["runs"], npo["knowledge_left_n"]) == ("npo elastic rfa", 3, 3)
    assert (npo["knowledge_left"], npo["knowledge_left_low"], npo["knowledge_left_high"]) == pytest.approx(
        (0.92 / 3, low, high)
    )
    assert npo["attack/relearn/knowledge_left_n"] == 2  # one run has no valid setting
    by_hand = stats.ttest_rel(K["npo"], K["eru"]).confidence_interval()
    found = {row["figure"]: row for row in differences}
    left = found["knowledge_left"]
    assert (left["difference_low"], left["difference_high"]) == pytest.approx((by_hand.low, by_hand.high))
    assert (left["minus"], left["pairs"], left["conclusion"]) == ("eru elastic rfa", 3, "higher")
    # The report's own tables say the same.
    shown = {row[1].text: row[3].text for row in arm_tables(runs)[1].rows}
    words = {"knowledge_left": "knowledge left", "utility_kept": "utility kept"}
    assert all(found[name]["conclusion"] == shown[word] for name, word in words.items())


def test_copies_of_a_run_count_once(make_run: MakeRun) -> None:
    made = folders(make_run, worlds=2)
    copy = make_run("copy", config={"method.name": "eru", "output": "elsewhere"})  # knowledge left 0.02
    arms = json.loads(data_file(FRAMES["arms"](load_runs([*made, copy])), "json"))
    assert arms[0]["runs"] == 2 and arms[0]["knowledge_left"] == pytest.approx(((0.1 + 0.02) / 2 + 0.2) / 2)


def test_the_command(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [str(folder) for folder in folders(make_run)]

    def typed(*options: str) -> tuple[int, str, str]:
        code = report.main([*made, *options])
        return code, *capsys.readouterr()

    code, out, _ = typed("--columns", "run,knowledge_left", "--filter", "method=npo", "--sort", "-knowledge_left")
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["run", "knowledge_left"]
    assert [line.split()[0] for line in lines[2:5]] == ["npo-1", "npo-0", "npo-2"]
    assert "0.39 [-0.03, 0.07]" in lines[2]
    # Without columns it is the report of the rows that are left.
    code, out, _ = typed("--filter", "dataset.world=1", "--filter", "trainer.lr>=3e-4", "--format", "html")
    assert code == 0 and "eru-1" in out and "npo-1" in out and "eru-0" not in out
    code, out, _ = typed("--arms", "--columns", "arm,knowledge_left", "--format", "csv", "--sort", "knowledge_left")
    assert code == 0 and out.splitlines()[0] == "arm,knowledge_left" and out.splitlines()[1].startswith("eru")
    file = tmp_path / "runs.parquet"
    assert typed("--format", "parquet", "--output", str(file))[0] == 0
    assert parquet.read_table(file).num_rows == 6
    for options, wrong, line in (
        (["--columns", "knowlege_left"], 2, "near: knowledge_left"),
        (["--sort", "K"], 2, "no column 'K'"),
        (["--filter", "method=nop"], 3, "none of 6 runs"),
        (["--format", "parquet"], 2, "--output"),
        (["--arms", "--format", "html"], 2, "--format md"),
        (["--latex", "siunitx", "--format", "csv"], 2, "do not go together"),
    ):
        code, out, err = typed(*options)
        assert (code, out, err.count("\n")) == (wrong, "", 1) and line in err


def test_the_best_is_nearest_to_the_oracle_and_has_not_collapsed() -> None:
    none, known = [False] * 4, [True] * 4
    assert best_places("knowledge_left", [0.3, -0.1, 0.0, None], [False, False, True, False], known) == {1}
    assert best_places("knowledge_left", [0.3, -0.1, 0.0, 0.2], none, [True, True, False, True]) == {1}
    assert best_places("attack/worst/knowledge_left", [0.104, 0.1, 0.2], none, known) == {0, 1}
    assert best_places("utility_kept", [0.9, 0.97, 1.4], [False, False, True], [False] * 3) == {1}
    assert best_places("forget/choice", [0.1, 0.2], none, known) == set()  # the oracle's is best, wherever it is
    assert best_places("retain/choice", [0.9, 0.9], none, known) == set()
