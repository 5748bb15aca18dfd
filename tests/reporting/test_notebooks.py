"""The notebooks' code runs on a run folder and shows something."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.conftest import MakeRun

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def shown(source: str, names: dict[str, Any]) -> Any:
    """Runs a cell; returns its last value, as a notebook would show it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None
    for protocol in ("_repr_html_", "_repr_png_"):
        if hasattr(value, protocol):
            return getattr(value, protocol)()
    return value


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(
    notebook: Path,
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "outputs" / "fictitious").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    for number, name in enumerate(("npo-1", "eru-2")):
        folder = make_run(f"outputs/fictitious/{name}", config={"method.name": name.split("-")[0]})
        for file in ("scores.json", "attacks.json"):
            os.utime(folder / file, (number, number))
    monkeypatch.chdir(tmp_path / "notebooks")
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    names: dict[str, Any] = {}
    values = [shown("".join(cell["source"]), names) for cell in cells]
    printed = capsys.readouterr().out
    assert any(isinstance(value, bytes) and value.startswith(b"\x89PNG") for value in values)
    assert any(isinstance(value, str) and "<table>" in value for value in values)
    said = "tabular" if "trade_off" in notebook.stem else "after relearning: not robust, knowledge left 0.12"
    assert said in printed
    if "trade_off" not in notebook.stem:
        assert names["run"].name == "eru-2"


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["01_quickstart", "02_trade_off", "03_robustness"]
