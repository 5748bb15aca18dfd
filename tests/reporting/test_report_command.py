"""`python -m erulab.report`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from erulab import report
from tests.reporting.conftest import MakeRun


def test_prints_or_writes(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run()
    assert report.main([str(folder)]) == 0
    assert "forgotten" in capsys.readouterr().out
    file = tmp_path / "table.csv"
    assert report.main([str(folder), "--format", "csv", "--output", str(file)]) == 0
    assert file.read_text().startswith("run,folder,method,reward,adversary,")


def test_one_line_and_exit_3_for_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path / "nowhere")]) == 3
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "is no run or sweep folder" in err


def test_a_file_that_cannot_be_written(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(make_run()), "--output", str(tmp_path / "no" / "such" / "file")]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_loads_no_torch(make_run: MakeRun) -> None:
    code = (
        f"import sys; from erulab import report; report.main([{str(make_run())!r}, '--format', 'html']);"
        "print({'torch', 'transformers', 'hydra'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "set()\n" and "<html" in done.stdout
