"""report.md, report.html and the plots."""

from __future__ import annotations

import copy
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from erulab.errors import DataError
from erulab.reporting import compare, draw_run, load_run, write_report
from erulab.reporting.page import html_page
from erulab.rundir import RunDir
from tests.reporting.conftest import ATTACKS, SAMPLES, SCORES, MakeRun, attack_row, attacked
from tests.reporting.test_budget import attempt
from tests.reporting.test_tables import NASTY, Document, assert_only_our_script
from tests.reporting.test_trajectories import ORACLE, TARGET, line


def report(folder: Path) -> tuple[str, str]:
    rundir = RunDir(folder)
    write_report(rundir)
    return rundir.report_md.read_text(encoding="utf-8"), rundir.report_html.read_text(encoding="utf-8")


def test_a_report_describes_the_whole_run(make_run: MakeRun) -> None:
    folder = make_run()
    md, html = report(folder)
    document = Document(html)
    for text in (md, document.text):
        assert "forgotten: knowledge left 0.02, 90 % interval" in text
        assert "utility kept: 97 %" in text
        assert "python -m erulab.run method=eru" in text
        assert "Bela Ronu was born in Tiro." in text
        assert "found in the cache" in text and "4.2 s" in text
        assert "1.9e-23" in text and "differ by too little" in text
    # One file: no address is fetched, every plot is inside it; links lead to places in the page.
    assert not re.findall(r'(?:src|href)="(?!#)', html) and "@import" not in html
    assert html.count('class="plot wide"') == html.count('class="plot narrow"') == 6
    images = sorted((folder / "plots").iterdir())
    assert [p.name for p in images] == [
        "budget.png",
        "heat.png",
        "knowledge.png",
        "relearning.png",
        "robustness.png",
        "training.png",
    ]
    for image in images:
        data = image.read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and width > 600 and height > 200
    assert all((folder / link).is_file() for link in re.findall(r"\]\((plots/[^)]+)\)", md))


def test_costs_are_shown_by_stage(make_run: MakeRun) -> None:
    known = {"tokens": 1234567, "flops": 4e14, "flops_adversary": 1e14, "peak_memory_bytes": 5.2e8, "seconds": 90.0}
    stages = {
        "target": {"done": True, "from_cache": True, "key": "k", **known},
        "oracle": {"done": True, "from_cache": False, "key": "k", **known, "flops": None},  # of an unknown model type
    }
    scores = copy.deepcopy(SCORES)
    scores["target"]["cost/tokens"] = 1234567
    md, html = report(make_run(stages=stages, scores=scores))
    assert "| target | found in the cache | 1 min 30 s | 1,234,567 | 4.00e14 | 25 % | 0.52 GB |" in md
    assert "| oracle | done | 1 min 30 s | 1,234,567 | – | – | 0.52 GB |" in md
    assert "| unlearn | failed or not reached | – | – | – | – | – |" in md
    assert "4.00e14" in Document(html).text
    assert "cost/" not in md  # costs are not shown among the scores


def test_targets_that_differ_only_in_cost_share_a_row(make_run: MakeRun) -> None:
    runs = []
    for seconds in (10.0, 11.0):
        scores = copy.deepcopy(SCORES)
        scores["target"]["cost/seconds"] = seconds
        runs.append(make_run(f"eru-{seconds:.0f}", scores=scores))
    assert compare(runs, "csv").count("\ntarget,") + compare(runs, "csv").startswith("target,") == 1


def test_problems_of_the_data_are_shown(make_run: MakeRun) -> None:
    folder = make_run()
    rundir = RunDir(folder)
    note = "2 forget rows (1, 2) overlap with retain rows"
    rundir.write_json(rundir.stages_json, {"data": {"notes": [note], "done": True}})
    md, html = report(folder)
    assert "Data: 2 forget rows" in md and note in Document(html).text


def test_text_of_a_model_has_no_effect(make_run: MakeRun) -> None:
    """FAULTS 29."""
    samples = [{**SAMPLES[0], "prompt": NASTY, "unlearned": NASTY + "\n```\n# heading\n\ud800"}]
    attacks = [{**ATTACKS[0], "note": NASTY, "attack": NASTY, "setting": {"samples": 5, NASTY: NASTY}}]
    scores = copy.deepcopy(SCORES)
    scores["unlearned"]["knowledge_left_note"] = NASTY
    folder = make_run(
        samples=samples, attacks=attacks, scores=scores, config={"dataset.name": NASTY, "method.name": NASTY}
    )
    md, html = report(folder)
    for text in (md, html):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert_only_our_script(html)
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", md, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in outside and "# heading" not in outside and "alert(1)" in outside


def test_plots_of_an_earlier_run_are_removed(make_run: MakeRun) -> None:
    folder = make_run()
    report(folder)
    (folder / "attacks.json").write_text("[]")
    md, _ = report(folder)
    assert sorted(p.stem for p in (folder / "plots").iterdir()) == ["knowledge", "robustness", "training"]
    assert "plots/training.png" in md and "relearning.png" not in md


def test_a_run_without_results_has_nothing_to_report(make_run: MakeRun) -> None:
    # The folder that `stages=[report]` finds if no stage has run.
    folder = make_run(
        stages={"data": {"notes": [], "done": True}, "report": {"done": True}},
        metrics=[],
        without=("scores", "attacks", "samples"),
    )
    with pytest.raises(DataError, match="nothing to report.*stages="):
        report(folder)
    assert not (folder / "report.md").exists()


def test_over_forgetting_is_reported(make_run: MakeRun) -> None:
    scores = copy.deepcopy(SCORES)
    scores["unlearned"] |= {"knowledge_left": -0.3, "knowledge_left_low": -0.4, "knowledge_left_high": -0.2}
    scores["unlearned"] |= {"knowledge_left_low90": -0.38, "knowledge_left_high90": -0.22}
    md, html = report(make_run(scores=scores))
    for text in (md, Document(html).text):
        assert (
            "over-forgotten: the model knows less than the oracle (knowledge left -0.30" in text.replace("\\", "")
            and "Over-forgetting is a failure too" in text
        )


def test_a_run_that_failed_is_reported_as_such(make_run: MakeRun) -> None:
    ended = {"code": 5, "message": "loss is nan at step 3; try a smaller trainer.lr", "rank": 0}
    stages = {"target": {"done": True, "seconds": 90.0, "from_cache": False, "key": "k"}}
    md, html = report(make_run(stages=stages, exit=ended, metrics=[], without=("scores", "attacks", "samples", "env")))
    for text in (md, Document(html).text):
        assert "Not finished: oracle, unlearn, evaluate, attack, report." in text
        assert "loss is nan at step 3" in text and "No model was scored." in text
        assert "No attack was run, so nothing is known about robustness." in text
        assert "failed or not reached" in text and "1 min 30 s" in text
        assert "not measurable: no scores of the target, unlearned, oracle" in text
    assert "<figure" not in html


@pytest.mark.parametrize("missing", ["oracle", "target"])
def test_a_report_without_one_of_the_models(make_run: MakeRun, missing: str) -> None:
    scores = {model: figures for model, figures in copy.deepcopy(SCORES).items() if model != missing}
    del scores["unlearned"]["knowledge_left"]
    md, _ = report(make_run(scores=scores, attacks=[]))
    assert f"not measurable: no scores of the {missing}" in md


def test_a_report_of_attacks_alone(make_run: MakeRun) -> None:
    folder = make_run(config={"stages": ["attack", "report"]}, scores={}, metrics=[])
    write_report(RunDir(folder))
    text = (folder / "report.md").read_text()
    assert text.splitlines()[2].startswith(
        "- **not robust: after the strongest attack (relearn, samples=100; the largest of 3)"
    )
    assert "- not scored: " in text and "No model was scored." in text and "forgotten:" not in text
    assert "Utility:" not in text and (folder / "plots" / "robustness.png").is_file()


def test_the_comparison_page_is_one_file(make_run: MakeRun) -> None:
    html = compare([make_run("eru-1"), make_run("npo-1", config={"method.name": "npo"})], "html")
    assert html.count('class="plot wide"') == 1 and not re.findall(r'(?:src|href)="(?!#)', html)
    assert "Comparison of 2 runs" in html


def test_curves_are_drawn_if_the_run_has_them(make_run: MakeRun) -> None:
    kept = {"attacked_target": 5.0, "attacked_oracle": -2.0}
    tried = [attempt(0.1, 1.0, steps=4) | kept, attempt(0.3, 2.0, steps=8) | kept]
    rows = [attack_row("relearn", {"samples": 5}, 0.3, attempts=tried)]
    scores = {"target": TARGET, "unlearned": SCORES["unlearned"], "oracle": ORACLE}
    lines = [line(0, 4.0, 2.0, 1.0, 0.8), line(9, 0.0, 1.0, 1.0, 0.4)]
    run = load_run(make_run(attacks=rows, scores=scores, metrics=lines))
    assert {"learning", "trajectory", "budget"} < set(draw_run(run))


@pytest.mark.parametrize(
    ("attacks", "tone"),
    [
        (attacked("relearn", {"samples": 5}, 0.02), "good"),
        (attacked("relearn", {"samples": 5}, 0.3), "mixed"),  # it comes back
        (attacked("relearn", {"samples": 5}, 0.0, valid=False), "mixed"),  # nothing is known
        ([], "mixed"),
    ],
)
def test_green_needs_a_valid_attack_that_was_withstood(
    make_run: MakeRun, attacks: list[dict[str, Any]], tone: str
) -> None:
    assert f'class="verdict {tone}"' in html_page(load_run(make_run(attacks=attacks)), {})
