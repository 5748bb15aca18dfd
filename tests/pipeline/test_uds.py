"""Runs that measure the Unlearning Depth Score, and why some cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pipeline.conftest import Finished, Runner

NO_ATTACK = ("attack=none", "evaluation.generate=false")


def cached(done: Finished, kind: str) -> list[Path]:
    return sorted((done.rundir.path.parents[1] / ".cache" / kind).glob("*/entry.json"))


def learned(done: Finished, role: str) -> Path:
    key = done.read("stages.json")[role]["key"]
    return done.rundir.path.parents[1] / ".cache" / "learned" / key / "model"


def test_target_has_zero_and_oracle_one(first: Finished, run: Runner) -> None:
    none, retrain = run("method=none", *NO_ATTACK), run("method=retrain", *NO_ATTACK)
    assert (none.code, retrain.code) == (0, 0)
    scores = none.read("scores.json")
    assert (scores["target"]["uds"], scores["oracle"]["uds"]) == (0, 1)
    assert scores["unlearned"]["uds"] == pytest.approx(0, abs=1e-6)
    retrained = retrain.read("scores.json")["unlearned"]
    assert (retrained["uds"], retrained["uds/n"]) == (1, 40)
    low, high = retrain.read("intervals.json")["unlearned"]["uds"]
    assert 0.8 < low < 1 == high  # of 20 facts
    # The oracle's states went into the target once for all runs, and once more do as the unlearned model's.
    target = first.read("stages.json")["target"]["key"]
    into = [json.loads(entry.read_text())["depends_on"]["target"] for entry in cached(none, "patched")]
    assert into.count(target) == 3  # of eru, of the target itself, of the oracle
    assert not list((first.rundir.path.parents[1] / ".cache" / "patched").rglob("*.npy"))


def test_curve_and_rows_make_up_the_score(first: Finished) -> None:
    score, curves = first.read("scores.json")["unlearned"], first.read("uds.json")
    rows = [row["uds"] for row in curves["models"]["unlearned"]["rows"] if row["uds"] is not None]
    assert len(curves["models"]["unlearned"]["layers"]) == len(curves["gap"]) == 3
    assert score["uds/n"] == len(rows) and score["uds"] == pytest.approx(sum(rows) / len(rows))
    low, high = first.read("intervals.json")["unlearned"]["uds"]
    assert 0 <= low < score["uds"] < high <= 1
    assert "Depth (UDS) 0." in first.rundir.report_md.read_text()
    assert (first.rundir.plots / "depth.png").is_file()


def test_batches_do_not_matter(first: Finished, run: Runner) -> None:
    again = run("method=eru", "attack=none", "evaluation.batch_tokens=300", "rerun=true", "stages=[evaluate,report]")
    assert again.code == 0
    one, other = (done.read("scores.json")["unlearned"]["uds"] for done in (first, again))
    assert one == pytest.approx(other, abs=1e-5)


def test_models_that_do_not_fit_are_left_out_with_the_reason(first: Finished, run: Runner) -> None:
    without = run("method=npo", *NO_ATTACK, "stages=[target,unlearn,evaluate,report]", "dataset.world=3")
    assert without.code == 0
    assert without.read("scores.json")["unlearned"]["uds_note"] == "there is no oracle"
    assert "Depth (UDS) not measured: there is no oracle." in without.rundir.report_md.read_text()
    assert not (without.rundir.plots / "depth.png").exists()
    shallow = run("method=none", *NO_ATTACK, "model.layers=2", "target.epochs=1")
    given = run("method=none", *NO_ATTACK, f"model.oracle={learned(shallow, 'oracle')}")
    assert given.read("scores.json")["unlearned"]["uds_note"] == "oracle and target differ in width or depth"
    off = run("method=none", *NO_ATTACK, "evaluation.uds=false")
    assert not any(name.startswith("uds") for name in off.read("scores.json")["unlearned"])
    assert not (off.rundir.plots / "depth.png").exists()
