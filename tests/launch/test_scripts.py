"""The two scripts of a newcomer: what they print when something is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def checkout(folder: Path) -> Path:
    """Returns a copy of the files that the scripts read, without .venv."""
    shutil.copytree(ROOT / "launch", folder / "launch", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.txt", folder)
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "requirements.txt", folder / "tests")
    return folder


def start(folder: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(folder / "launch" / script)], env=os.environ | environment, capture_output=True, text=True
    )


def fake_python(folder: Path, body: str) -> str:
    file = folder / "fake-python"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize("script", ["quickstart.sh", "test.sh"])
def test_no_python(tmp_path: Path, script: str) -> None:
    done = start(checkout(tmp_path), script, PYTHON="/nowhere/python3")
    assert done.returncode == 4
    assert done.stderr.strip().splitlines() == [
        "erulab: no /nowhere/python3 found; install Python 3.11 or newer, or set PYTHON=/path/to/python"
    ]


def test_an_old_python(tmp_path: Path) -> None:
    old = fake_python(tmp_path, 'if [ "$1" = -V ]; then echo Python 3.9.2; exit 0; fi; exit 1')
    done = start(checkout(tmp_path), "quickstart.sh", PYTHON=old)
    assert done.returncode == 4
    assert "Python 3.11 or newer is needed" in done.stderr and "3.9.2" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_no_venv_module(tmp_path: Path) -> None:
    bare = fake_python(tmp_path, 'case "$2" in *venv*) echo "No module named venv" >&2; exit 1;; esac; exit 0')
    done = start(checkout(tmp_path), "test.sh", PYTHON=bare)
    assert done.returncode == 4
    assert done.stderr.strip().splitlines() == [
        f"erulab: {bare} has no venv module; install it (Debian, Ubuntu: apt install python3-venv)"
    ]
