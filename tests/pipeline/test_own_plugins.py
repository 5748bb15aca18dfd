"""The files my_figure.py and my_attack.py of the pages run as they stand there, from another folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import SMALL

ROOT = Path(__file__).parents[2]
# Name of a plugin file -> the page that shows it.
PAGES = {"my_figure": "erulab/evaluation/README.md", "my_attack": "erulab/attacks/README.md"}


def file_on_page(name: str) -> str:
    """The Python block whose docstring begins with the file's name."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / PAGES[name]).read_text(), re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if block.startswith(f'"""{name}.py:'))
    return str(block)


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    smaller = [o for o in SMALL if not o.startswith("attack.")]
    return subprocess.run(
        [sys.executable, "-m", "erulab.run", *smaller, "target.epochs=24", "output=runs", *overrides],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in PAGES:
        (folder / f"{name}.py").write_text(file_on_page(name))
    answer = run(folder, "plugins=[my_figure,my_attack]", "dataset=words", "attack=weight_noise")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return folder


def read(folder: Path, file: str) -> Any:
    (found,) = (folder / "runs").glob(f"*/*/{file}")
    return json.loads(found.read_text())


def test_a_figure_of_ones_own_is_in_the_scores(folder: Path) -> None:
    scores = read(folder, "scores.json")
    assert scores.keys() == {"target", "unlearned", "oracle"}
    for figures in scores.values():
        assert figures["spoken/n"] == 20
        assert 0 <= figures["least_known/word_recall"] <= figures["spoken/word_recall"] <= 1
    assert scores["target"]["spoken/word_recall"] > scores["oracle"]["spoken/word_recall"]
    assert "spoken/word_recall" in next((folder / "runs").glob("*/*/report.md")).read_text().replace("\\", "")


def test_an_attack_of_ones_own_is_judged_and_by_the_own_figure_too(folder: Path) -> None:
    rows = read(folder, "attacks.json")
    assert {row["attack"] for row in rows} == {"weight_noise"}
    headline = next(row for row in rows if row["headline"])
    assert headline["setting"] == {"sizes": [0.02, 0.1]} and len(headline["repeats"]) == 2
    assert [one["chosen"] for one in headline["attempts"]] == [{"size": 0.02}, {"size": 0.1}]
    assert "spoken/word_recall" in {row["metric"] for row in rows}
    assert {row["standing"] for row in rows} <= {"counts", "undefined", "not_valid", None}


def test_an_edited_figure_scores_anew(folder: Path) -> None:
    """Whoever changes the function in my_figure.py must not be given the old figures."""
    overrides = ("dataset=words", "attack=none", "stages=[target,evaluate]")
    own = folder / "my_figure.py"
    before = own.read_text()
    own.write_text(before.replace("/ len(words)", "/ len(words) / 2"))
    answer = run(folder, "plugins=[my_figure]", *overrides, "hydra.run.dir=edited")
    own.write_text(before)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    halved = json.loads((folder / "edited" / "scores.json").read_text())["target"]["spoken/word_recall"]
    whole = read(folder, "scores.json")["target"]["spoken/word_recall"]
    assert halved == pytest.approx(whole / 2)


def test_a_measure_that_nobody_registered_is_refused_before_training(folder: Path) -> None:
    (folder / "my_forgotten.py").write_text(file_on_page("my_figure").replace("@measures.register(WordRecall)\n", ""))
    answer = run(folder, "plugins=[my_forgotten]", "dataset=words", "attack=none", "hydra.run.dir=forgotten")
    assert answer.returncode == 2
    assert "suite spoken uses the measure WordRecall, which is not registered" in answer.stderr + answer.stdout
