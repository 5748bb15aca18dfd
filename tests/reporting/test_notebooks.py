"""The notebooks run from the first cell to the last, train what they show, and are stored without outputs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
MOST_CELLS = 12
SECONDS = 300  # for one cell, on a busy machine


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[NotebookNode]]:
    """Name -> code cells with their outputs. Executed in an empty folder, so that the second uses runs of the first."""
    folder = tmp_path_factory.mktemp("notebooks")
    found = {name: nbformat.read(path, as_version=4) for name, path in NOTEBOOKS.items()}
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        first, *others = found.values()
        NotebookClient(first, **_options(folder)).execute()

        async def execute() -> None:
            await asyncio.gather(*(NotebookClient(book, **_options(folder)).async_execute() for book in others))

        asyncio.run(execute())
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return {name: [cell for cell in book.cells if cell.cell_type == "code"] for name, book in found.items()}


def _options(folder: Path) -> dict[str, Any]:
    return {"timeout": SECONDS, "kernel_name": "python3", "resources": {"metadata": {"path": str(folder)}}}


def _shown(cells: list[NotebookNode], kind: str) -> list[str]:
    """Returns the outputs of a type, as a browser would show them."""
    return [out["data"][kind] for cell in cells for out in cell.outputs if kind in out.get("data", {})]


def _printed(cells: list[NotebookNode]) -> str:
    return "".join(out["text"] for cell in cells for out in cell.outputs if out.output_type == "stream")


def test_there_are_three_small_ones_without_outputs() -> None:
    assert list(NOTEBOOKS) == ["01_quickstart", "02_trade_off", "03_robustness"]
    for path in NOTEBOOKS.values():
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
        assert len(book.cells) <= MOST_CELLS
        cells = [cell for cell in book.cells if cell.cell_type == "code"]
        assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
        assert "git+https://" in cells[0].source  # Colab


@pytest.mark.parametrize(
    ("name", "pictures", "tables", "said"),
    [
        ("01_quickstart", 2, 2, "knowledge left"),
        ("02_trade_off", 1, 3, r"\begin{tabular}"),
        ("03_robustness", 3, 1, "after relearning"),
    ],
)
def test_notebook(executed: dict[str, list[NotebookNode]], name: str, pictures: int, tables: int, said: str) -> None:
    cells = executed[name]
    assert len(_shown(cells, "image/png")) == pictures
    assert sum("<table" in shown for shown in _shown(cells, "text/html")) == tables
    printed = _printed(cells)
    assert said in printed and "run folder: outputs/fictitious/" in printed
    # erulab was importable, so nothing was installed.
    assert cells[0].outputs == []


def test_a_sweep_takes_the_run_of_another_notebook(executed: dict[str, list[NotebookNode]]) -> None:
    assert "finished before" in _printed(executed["02_trade_off"])
