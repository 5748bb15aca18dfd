"""Follows "Add a method in five minutes" of erulab/README.md: its file and its command, from another folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipeline.conftest import SMALL

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "erulab" / "README.md"
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


def run_page_command(folder: Path, *overrides: str) -> Path:
    """Runs the command of the page on a smaller model and world; returns the run folder."""
    smaller = [o for o in SMALL if o.startswith(("model.", "dataset.", "evaluation.", "attack."))]
    options = (f"method.ceiling={CEILING}", "output=runs", *overrides)
    answer = python(folder, "erulab.run", *first_command(), *smaller, *options)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    (run,) = (folder / "runs" / "fictitious").glob("mymethod-*")
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the checkout with the file of the page in it, where the command of the page has run."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "my_method.py").write_text(my_method_file())
    run_page_command(folder)
    return folder


def test_the_method_of_the_page_runs(folder: Path) -> None:
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


def test_an_edited_method_unlearns_anew(folder: Path, tmp_path: Path) -> None:
    """After an edit of my_method.py the cache does not return the model of the old loss."""

    def from_cache(run: Path) -> dict[str, bool]:
        stages = json.loads((run / "stages.json").read_text())
        return {stage: stages[stage]["from_cache"] for stage in ("target", "unlearn")}

    edited = shutil.copytree(folder, tmp_path / "edited")
    (before,) = (edited / "runs" / "fictitious").glob("mymethod-*")
    assert from_cache(before) == {"target": False, "unlearn": False}
    (edited / "my_method.py").write_text(my_method_file() + "\n# another loss\n")
    assert from_cache(run_page_command(edited, "stages=[target,unlearn]")) == {"target": True, "unlearn": False}


def test_it_is_listed_and_its_options_are_checked(folder: Path) -> None:
    listed = python(folder, "erulab.list", "methods", "--plugins", "my_method").stdout
    assert "mymethod\tGradient ascent up to a ceiling, with retain NLL." in listed
    answer = python(folder, "erulab.run", "plugins=[my_method]", "method=mymethod", "method.ceiling=-1")
    assert answer.returncode == 2
    assert answer.stderr.strip() == (
        "method.ceiling must be > 0, got -1.0 (set on the command line); try method.ceiling=3.0 (default)"
    )
