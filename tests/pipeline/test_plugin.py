"""Follows "Add a method in five minutes" of erulab/methods/README.md: its file and its command, from another folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipeline.conftest import SMALL

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "erulab" / "methods" / "README.md"
CEILING = 20.0  # nats per token; above the NLL of any row here, so that no row is clamped


def my_method_file() -> str:
    """Returns the content of my_method.py on the page."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if "@methods.register" in block)
    return block


def first_command() -> list[str]:
    """Returns the overrides of the page's first command that runs it."""
    lines = re.findall(r"^python -m erulab\.run (plugins=\[my_method\][^#\n]*)", PAGE.read_text(), re.M)
    return shlex.split(lines[0])


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder outside the checkout that holds my_method.py."""
    (tmp_path / "my_method.py").write_text(my_method_file())
    return tmp_path


def test_the_method_of_the_page_runs(folder: Path) -> None:
    smaller = [o for o in SMALL if o.startswith(("model.", "dataset.", "evaluation.", "attack."))]
    answer = python(folder, "erulab.run", *first_command(), *smaller, f"method.ceiling={CEILING}", "output=runs")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    (run,) = (folder / "runs" / "fictitious").glob("mymethod-*")
    assert yaml.safe_load((run / "run.yaml").read_text())["method"]["ceiling"] == CEILING
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 3
    for step in steps:
        # Below the ceiling the loss is the ceiling minus the NLL; weights are 1.
        assert step["forget_loss"] == pytest.approx(CEILING - step["method/nll"], abs=1e-4)
        assert step["loss"] == pytest.approx(step["forget_loss"] + step["retain_loss"], abs=1e-4)
    assert json.loads((run / "scores.json").read_text()).keys() == {"target", "unlearned", "oracle"}
    assert "mymethod" in (run / "report.md").read_text()


def test_an_edited_method_unlearns_anew(folder: Path) -> None:
    """After an edit of my_method.py the model of the old loss must not come from the cache."""
    smaller = [o for o in SMALL if o.startswith(("model.", "dataset."))]
    command = ["erulab.run", *first_command(), *smaller, "stages=[target,unlearn]", "attack=none", "output=runs"]

    def from_cache() -> dict[str, bool]:
        answer = python(folder, *command)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        (run,) = (folder / "runs" / "fictitious").glob("mymethod-*")
        stages = json.loads((run / "stages.json").read_text())
        return {stage: stages[stage]["from_cache"] for stage in ("target", "unlearn")}

    assert from_cache() == {"target": False, "unlearn": False}
    (folder / "my_method.py").write_text(my_method_file() + "\n# another loss\n")
    assert from_cache() == {"target": True, "unlearn": False}


def test_it_is_listed_and_its_options_are_checked(folder: Path) -> None:
    listed = python(folder, "erulab.list", "methods", "--plugins", "my_method").stdout
    assert "mymethod\tGradient ascent up to a ceiling, with retain NLL." in listed
    answer = python(folder, "erulab.run", "plugins=[my_method]", "method=mymethod", "method.ceiling=-1")
    assert answer.returncode == 2
    assert answer.stderr.strip() == (
        "method.ceiling must be > 0, got -1.0 (set on the command line); try method.ceiling=3.0 (default)"
    )
