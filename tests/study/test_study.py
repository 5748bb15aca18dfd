"""A whole study on a small world: tuned, reported, and not run a second time."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from erulab import worker
from erulab.rundir import RunDir
from erulab.study.__main__ import main
from erulab.training.stopping import StopRequest
from tests.pipeline.conftest import SMALL

SETTINGS = " ".join(o for o in SMALL if not o.startswith(("attack.", "trainer.lr", "target.epochs", "trainer.steps")))
STUDY = f"""
arms: [method=simnpo, method=gd]
common: {SETTINGS} target.epochs=8 trainer.steps=2 evaluation.generate=false
tuning:
  common: stages=[target,oracle,unlearn,evaluate] attack=none
  space: {{trainer.lr: [1.0e-5, 1.0e-2]}}
  rounds: [{{trials: 2, runs: dataset.world=1}}]
  utility: retain/choice
  kept: 0.9
report: {{runs: "seed=0,1", common: "attack=quantize stages=[target,oracle,unlearn,evaluate,attack] dataset.world=1"}}
"""


def test_a_study_tunes_reports_and_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(STUDY)
    command = [str(file), f"output={tmp_path / 'o'}"]
    assert main(command) == 0
    (folder,) = (tmp_path / "o" / "studies").iterdir()
    assert (
        str(folder) in capsys.readouterr().out and "knowledge left after quantize" in (folder / "report.md").read_text()
    )
    arms = json.loads((folder / "study.json").read_text())["arms"]
    assert [arm["arm"] for arm in arms] == ["method=simnpo", "method=gd"]
    assert arms[0]["trials"][0]["overrides"] == arms[1]["trials"][0]["overrides"]
    for arm in arms:
        assert arm["best"] in [trial["overrides"] for trial in arm["trials"]] and len(arm["folders"]) == 2
        for run in arm["folders"]:
            assert RunDir(run).read_json(RunDir(run).exit_json)["code"] == 0 and RunDir(run).attacks_json.is_file()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "o").rglob("exit.json")}
    assert len(before) == 2 * 2 + 2 * 2
    assert main([*command, "--reverse"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "o").rglob("exit.json")} == before


def test_a_mistake_in_the_last_arm_shows_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(STUDY.replace("method=gd]", "method=gd reward=elastic]"))
    assert main([str(file), f"output={tmp_path / 'o'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "o" / "fictitious").exists()


def test_only_a_diverging_trial_counts_as_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk ends the study, because it must not choose among the trials. Ctrl-C still works after a run."""

    def failing(code: int) -> Callable[[list[str]], int]:
        def run(argv: list[str]) -> int:
            StopRequest().install()
            RunDir(argv[0]).write_json(RunDir(argv[0]).exit_json, {"code": code, "message": "no space", "rank": 0})
            return code

        return run

    file = tmp_path / "small.yaml"
    file.write_text(STUDY)
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(worker, "main", failing(4))
    assert main([str(file), f"output={tmp_path / 'o'}"]) == 4
    said = capsys.readouterr()
    assert "no space" in said.err and said.err.count("\n") == 1 and said.out == ""
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setattr(worker, "main", failing(5))
    assert main([str(file), f"output={tmp_path / 'o'}", "--tune-only"]) == 0
    assert capsys.readouterr().out.count("utility kept -inf") == 4
    assert main([str(file), f"output={tmp_path / 'o'}"]) == 5  # there is nothing to report
    assert "no trial of any arm ended with a number" in capsys.readouterr().err


def test_several_processes_per_run_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(STUDY)
    assert main([str(file), f"output={tmp_path}", "engine=zero2", "engine.processes=2"]) == 2
    assert "in one process" in capsys.readouterr().err
