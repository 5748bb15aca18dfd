"""`erulab ls`: states, figures, what differs, and that hundreds of runs take about a second."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erulab.commands import ls
from erulab.rundir import RunDir
from tests.reporting.conftest import MakeRun


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    code = ls.main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def ended(folder: Path, code: int) -> None:
    (folder / "exit.json").write_text(json.dumps({"code": code, "message": "m", "rank": 0}))


@pytest.mark.parametrize(
    ("spoil", "state"),
    [
        (lambda folder: None, "done"),
        (lambda folder: ended(folder, 75), "stopped"),
        (lambda folder: ended(folder, 3), "failed"),
        (lambda folder: (folder / "exit.json").unlink(), "lost"),
        (lambda folder: (folder / "scores.json").write_text("{"), "damaged"),
    ],
)
def test_state(
    spoil: Callable[[Path], Any], state: str, make_run: MakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spoil(make_run())
    code, (found,) = listed(capsys, str(tmp_path))
    assert found["state"] == state
    assert code == (6 if state == "damaged" else 0)


@pytest.mark.parametrize("host", [0, 1])
def test_a_run_whose_lock_is_held_is_running(
    host: int, make_run: MakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = make_run()
    with RunDir(folder).locked(host_index=host):
        assert listed(capsys, str(tmp_path))[1][0]["state"] == "running"
    # A lock file that nobody holds is left by a run that was killed.
    RunDir(folder).lock(host).touch()
    assert listed(capsys, str(tmp_path))[1][0]["state"] == "done"


def test_figures_and_differences(make_run: MakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The figures are those that tests/reporting/conftest.py writes into scores.json and attacks.json."""
    for seed in (0, 1, 2):
        make_run(f"eru-{seed}", config={"seed": seed, "trainer.lr": 1e-3 if seed == 2 else 3e-4})
    code, found = listed(capsys, str(tmp_path), "--sort", "name")
    assert code == 0 and [one["name"] for one in found] == ["eru-0", "eru-1", "eru-2"]
    assert found[0]["knowledge_left"] == {"value": 0.02, "low": -0.03, "high": 0.07}
    assert found[0]["utility_kept"] == pytest.approx(0.97)
    worst = found[0]["worst_attack"]
    assert worst.pop("attack") == "relearn"
    assert worst == pytest.approx({"value": 0.12, "low": 0.05, "high": 0.2})
    assert found[0]["verdict"] == "forgotten" and found[0]["made_by"] == ["eru", "elastic", "rfa"]
    # Two of three runs share the rate: it is told of the third one only.
    assert [one["settings"] for one in found] == [{"seed": 0}, {"seed": 1}, {"seed": 2, "trainer.lr": 1e-3}]
    assert ls.main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "0.02 [-0.03, 0.07]" in text and "0.12 [0.05, 0.20] relearn" in text and "eru elastic rfa seed=1" in text


def test_a_narrow_terminal(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        make_run(f"eru-{seed}", config={"seed": seed})
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert ls.main([str(tmp_path), "--sort", "name"]) == 0
    lines = capsys.readouterr().out.splitlines()[:-1]
    assert max(map(len, lines)) <= 60
    assert [line.strip() for line in lines if line.startswith("    eru")] == [
        f"eru elastic rfa seed={seed}" for seed in (0, 1)
    ]


def test_secrets_are_not_shown(make_run: MakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for number in (1, 2):
        make_run(f"eru-{number}", config={"dataset.path": f"https://ann:secret-word-{number}@host/rows"})
    for arguments in ([str(tmp_path)], [str(tmp_path), "--json"]):
        assert ls.main(arguments) == 0
        assert "secret-word" not in capsys.readouterr().out


def test_nothing_to_list(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert ls.main([str(tmp_path)]) == 3
    assert ls.main(["--sort", "colour"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_hundreds_of_runs_take_about_a_second(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = make_run("eru-000")
    for number in range(1, 300):
        shutil.copytree(first, tmp_path / f"eru-{number:03}")
    began = time.process_time()
    assert ls.main([str(tmp_path)]) == 0
    seconds = time.process_time() - began
    assert len(capsys.readouterr().out.splitlines()) > 300
    print(f"300 runs: {seconds:.2f} s")
    assert seconds < 6  # about 1 s on a machine that does nothing else
