"""`erulab status`: made-up sweeps and runs; the expected end is worked out by hand."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from erulab.commands import status
from erulab.rundir import RunDir
from tests.reporting.conftest import ENV, MakeRun

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
COMMAND = "python -m erulab.run -m seed=range(0,6)"


def make_sweep(make_run: MakeRun, tmp_path: Path, jobs: list[tuple[str, int | None, float | None]]) -> Path:
    """Writes a sweep of jobs (name, code, seconds) in a folder; those called `none-*` have no run folder."""
    rows = []
    for name, code, seconds in jobs:
        if not name.startswith("none"):
            ago = {"env": {**ENV, "started": (NOW - timedelta(seconds=5)).isoformat()}}
            make_run(name, without=() if code is not None else ("exit",), **ago)
            if code is not None:
                ended = {"code": code, "message": "why" if code else "", "rank": 0}
                (tmp_path / name / "exit.json").write_text(json.dumps(ended))
        rows.append(
            {
                "overrides": [f"seed={name}"],
                "folder": str(tmp_path / name),
                "code": code,
                "seconds": seconds,
                "gpus": "",
            }
        )
    folder = tmp_path / "sweeps" / "k"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps({"key": "k", "command": COMMAND, "jobs": rows}))
    return folder


@pytest.mark.parametrize(
    ("running", "left"),
    [
        (["d"], 40.0),  # two jobs of (10 + 20) / 2 s, and 10 s of the one that began 5 s ago
        (["d", "e"], 17.5),  # (15 + 10 + 10) / 2, because two run at once
        ([], 45.0),
    ],
)
def test_a_sweep(running: list[str], left: float, make_run: MakeRun, tmp_path: Path) -> None:
    jobs: list[tuple[str, int | None, float | None]] = [
        ("a", 0, 10.0),
        ("b", 0, 20.0),
        ("c", 0, None),  # finished before this sweep: its seconds are not known
        ("d", None, None) if "d" in running else ("none-d", None, None),
        ("e", None, None) if "e" in running else ("none-e", None, None),
        ("none-f", None, None),
    ]
    folder = make_sweep(make_run, tmp_path, jobs)
    with contextlib.ExitStack() as held:
        for name in running:
            held.enter_context(RunDir(tmp_path / name).locked())
        found = status.sweep_status(folder, NOW)
    assert found["jobs"] == 6 and found["states"].get("done") == 3
    assert found["states"].get("running", 0) == len(running)
    assert found["seconds_left"] == pytest.approx(left)
    end = (NOW + timedelta(seconds=left)).isoformat() if running else None
    assert found["expected_end"] == end


def test_what_to_type(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs: list[tuple[str, int | None, float | None]] = [("a", 0, 10.0), ("b", 75, 3.0), ("c", 3, 1.0), ("none", 4, 0.1)]
    assert status.main([str(make_sweep(make_run, tmp_path, jobs))]) == 0
    text = capsys.readouterr().out
    assert "1 of 4 jobs done, 1 stopped, 2 failed" in text
    assert "stopped  seed=b: why" in text and "failed   seed=none" in text
    assert text.rstrip().endswith(COMMAND)


def test_a_study_keeps_no_outcomes(make_run: MakeRun, tmp_path: Path) -> None:
    rows = [{"overrides": ["method=npo"], "folder": str(make_run("a"))}]
    (tmp_path / "sweep.json").write_text(json.dumps({"command": COMMAND, "jobs": rows}))
    assert status.sweep_status(tmp_path, NOW)["states"] == {"done": 1}


def test_a_job_folder_that_was_moved_is_found(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_sweep(make_run, tmp_path, [("a", 0, 10.0)])
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    # A sweep's jobs lie beside the folder of sweeps, in the folder of their data set: here that of the test.
    sweep = moved / folder.relative_to(tmp_path)
    content = json.loads((sweep / "sweep.json").read_text())
    assert content["jobs"][0]["folder"].startswith(str(tmp_path))
    (moved / tmp_path.name).mkdir()
    (moved / "a").rename(moved / tmp_path.name / "a")
    assert status.sweep_status(sweep, NOW)["states"] == {"done": 1}


def test_a_run_that_works(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    done: dict[str, Any] = {
        stage: {"key": "k", "seconds": 1.0, "from_cache": True, "done": True} for stage in ("target", "oracle")
    }
    lines = [{"step": step, "loss": 1.5, "forget_loss": 1.0, "retain_loss": 0.5} for step in range(12)]
    folder = make_run(
        stages=done, without=("scores", "attacks", "samples", "exit"), config={"trainer.steps": 60}, metrics=lines
    )
    (folder / "rank0.log").write_text("config\n\x1b[2Kunlearning 3/60\r\x1b[2Kunlearning 12/60  loss 1.500\n\n")
    with RunDir(folder).locked():
        assert status.main([str(folder)]) == 0
    text = capsys.readouterr().out
    assert "running by process" in text and "stage 3 of 6: unlearn" in text
    assert "unlearning step 12 of 60  loss 1.500  forget 1.000  retain 0.500" in text
    assert "last line: unlearning 12/60  loss 1.500\n" in text and "\x1b" not in text
    # The same folder once its processes were killed.
    assert status.main([str(folder)]) == 0
    text = capsys.readouterr().out
    assert ": lost, started" in text and text.rstrip().endswith(ENV["command"])


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, 3), ("{", 6), ('{"jobs": [{"folder": "x"}], "command": "c"}', 6), ('{"jobs": [], "command": 3}', 6)],
)
def test_faults(content: str | None, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    assert status.main([str(tmp_path)]) == code
    assert len(capsys.readouterr().err.splitlines()) == 1
