"""The README's commands that are marked `# quick` run as they are written. (tests/cli composes the others.)"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.conftest import Finished
from tests.samples.tofu_logs import PROBABILITIES, tofu_log, written

ROOT = Path(__file__).parents[2]
FOUND = re.findall(r"^python -m (erulab[^#\n]*)# quick", (ROOT / "README.md").read_text(), re.MULTILINE)
QUICK = [line.strip() for line in FOUND if "plugins=" not in line]  # test_plugin.py runs it; it needs a file
PROGRAMS = {"erulab.run", "erulab.report", "erulab.evaluate", "erulab.list", "erulab.plan"}


def spelled_out(line: str) -> list[list[str]]:
    """Returns the commands of a line in manual-page notation: `[...]` left out and put in, each of `a|b` in turn."""
    optional = re.search(r"\[(--[^]]*)\]", line)
    lines = [line] if optional is None else [line.replace(optional[0], text) for text in ("", optional[1])]
    commands = []
    for words in map(shlex.split, lines):
        choices = next((word for word in words if "|" in word), "")
        for choice in choices.split("|"):
            commands.append([choice if word == choices else word for word in words])
    return commands


def test_all_kinds_of_commands_are_marked() -> None:
    assert {line.split()[0] for line in QUICK} == PROGRAMS


@pytest.mark.parametrize("line", QUICK)
def test_quick_commands_run(
    line: str, first: Finished, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = written(tofu_log(PROBABILITIES), tmp_path_factory.mktemp("logs") / "log.json")
    files = {"outputs/...": first.rundir.path, "LOG.json": log, "RETAIN.json": log}
    for words in spelled_out(line):
        arguments = [str(files.get(word, word)) for word in words]
        answer = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.strip()
        assert not any(tmp_path.iterdir()), "a quick command starts no run"
