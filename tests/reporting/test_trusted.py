"""Marks of figures that failed the study of figures, and the study's tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from erulab import list as listing
from erulab.reporting import comparison_table, key_table, load_run, trusted
from tests.reporting.conftest import MakeRun


def found(auc: float, *, failed: bool) -> dict[str, Any]:
    one = {"value": auc, "low": auc - 0.1, "high": auc + 0.05}
    return {"faithfulness": one, "with_hiders": one, "relearning": 0.5, "quantisation": None, "failed": failed}


COUNTS = {"runs": 5, "know": 10, "hide": 6, "lack": 9, "relearned": 7}
FIGURES = {"forget/choice": found(0.9, failed=False), "forget/truth_ratio": found(0.7, failed=True)}
OTHER = {"forget_heldout/choice": found(0.8, failed=True), "forget/truth_ratio": found(0.9, failed=False)}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two settings: truth ratio fails in one of them, choice on held-out phrasings in the other."""
    file = tmp_path / "trusted_figures.json"
    settings = {"embedded": {"models": COUNTS, "figures": FIGURES}, "smollm2": {"models": COUNTS, "figures": OTHER}}
    file.write_text(json.dumps({"faithfulness": 0.8, "robustness": 0.5, "settings": settings}))
    monkeypatch.setattr(trusted, "FILE", file)
    trusted.trusted_figures.cache_clear()
    yield file
    trusted.trusted_figures.cache_clear()


def test_a_figure_that_failed_in_one_setting_is_marked_with_a_footnote(data: Path, make_run: MakeRun) -> None:
    run = load_run(make_run("eru-1"))
    table = key_table(run)
    names = [row[0].text for row in table.rows]
    assert "truth ratio forget †" in names and "choice held out †" in names and "choice forget" in names
    assert any(note.startswith("†") and "erulab.list trust" in note for note in table.notes)
    compared = comparison_table([run])
    assert {"truth ratio forget", "choice held out"} < set(compared.headings)  # headings are columns of programs
    (note,) = [note for note in compared.notes if "study of figures" in note]
    assert note.endswith(": choice held out, truth ratio forget.")


def test_without_a_study_nothing_is_marked(data: Path, make_run: MakeRun) -> None:
    data.write_text(json.dumps({"faithfulness": 0.8, "robustness": 0.5, "settings": {}}))
    table = key_table(load_run(make_run("eru-1")))
    assert not [row for row in table.rows if "†" in row[0].text] and not [note for note in table.notes if "†" in note]


def test_the_list_prints_each_setting(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main(["trust", "--format", "md"]) == 0
    printed = capsys.readouterr().out
    assert "| `forget/truth_ratio †` | 0.70 [0.60, 0.75] | 0.70 [0.60, 0.75] | 0.50, - |" in printed
    assert printed.index("`forget/choice`") < printed.index("`forget/truth_ratio †`")  # best first
    assert printed.count("\n| --- |") == 2 and "smollm2" in printed
    assert printed.count("10 models know, 6 know and hide it, 9 do not know, of 5 runs") == 2


def test_the_shipped_data_can_be_read() -> None:
    assert set(trusted.trusted_figures()) == {"faithfulness", "robustness", "settings"}
    assert trusted.failed_figures() <= {
        name for one in trusted.trusted_figures()["settings"].values() for name in one["figures"]
    }


def test_a_program_reads_the_list_with_its_headings(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main(["trust"]) == 0
    printed = capsys.readouterr().out
    assert "presets" not in printed and printed.count("AUC") > 2 and printed.index("hiders") < printed.index("0.90")
