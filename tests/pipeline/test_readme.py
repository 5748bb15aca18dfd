"""Commands of the pages that are marked `# quick` run as they are written. (tests/pages composes all others.)"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages.pages import pages
from tests.pipeline.conftest import Finished
from tests.samples.tofu_logs import PROBABILITIES, tofu_log, written

ROOT = Path(__file__).parents[2]
TEXT = "\n".join(page.read_text() for page in pages())
FOUND = re.findall(r"^python -m (erulab[^#\n]*)# quick", TEXT, re.MULTILINE)
QUICK = [line.strip() for line in FOUND if "plugins=" not in line]  # test_plugin.py runs it; it needs a file
PROGRAMS = {"erulab.run", "erulab.report", "erulab.evaluate", "erulab.list", "erulab.plan"}


def test_all_kinds_of_commands_are_marked() -> None:
    assert {line.split()[0] for line in QUICK} == PROGRAMS


@pytest.mark.parametrize("line", QUICK)
def test_quick_commands_run(
    line: str, first: Finished, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = written(tofu_log(PROBABILITIES), tmp_path_factory.mktemp("logs") / "log.json")
    logs = {word: log for word in shlex.split(line) if word.endswith(".json")}
    files = {"outputs/fictitious": first.rundir.path, **logs}
    answer = subprocess.run(
        [sys.executable, "-m", *(str(files.get(word, word)) for word in shlex.split(line))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()
    assert not any(tmp_path.iterdir()), "a quick command starts no run"
