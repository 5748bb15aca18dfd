"""LaTeX tables hold their figures, have as many cells as columns, and nothing in them is a command of a text."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from erulab.reporting import load_runs
from erulab.reporting.frames import FRAMES
from erulab.reporting.frames.latex import STYLES, latex_table
from tests.reporting.conftest import MakeRun
from tests.reporting.test_arms import folders

NASTY = r"a_b & 50% $x$ #1 {y} ~ ^ \input{/etc/passwd} [2ex]*"
ALLOWED = (
    {"toprule", "midrule", "bottomrule", "begin", "end", "multicolumn", "bfseries", "scriptsize", "cdot", ",", "\\"}
    | {"textbackslash", "textasciitilde", "textasciicircum"}
    | set("_&%$#{}")
)


def parsed(text: str) -> tuple[int, list[list[str]]]:
    """Reads a tabular by TeX's own rules for characters: number of columns, and the cells of each row.

    Raises AssertionError for braces that do not pair, and for a command that a table has no need of.
    """
    body = re.sub(r"(?<!\\)%.*\n", "", text)
    depth, cells, rows, word, group = 0, [""], [], "", ""
    tokens = re.findall(r"\\[a-zA-Z]+|\\.|.", body, re.DOTALL)
    for token in tokens:
        if token.startswith("\\"):
            word = token[1:]
            assert word in ALLOWED, word
        depth += (token == "{") - (token == "}")
        assert depth >= 0
        if token == "&" and depth == 0:
            cells.append("")
        elif token == "\\\\":
            rows.append([cell.strip() for cell in cells])
            cells = [""]
        else:
            cells[-1] += token
    assert depth == 0
    found = re.search(r"\\begin\{tabular\}\{(.*)\}\n", body)
    assert found is not None
    group = re.sub(r"@\{\\,\}", "", found[1])
    return len(re.sub(r"\[[^]]*\]", "", group)), rows


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("rows", ["runs", "arms", "differences"])
def test_a_table_is_whole(make_run: MakeRun, style: str, rows: str) -> None:
    made = folders(make_run)
    made.append(make_run("nasty", config={"method.name": NASTY, "dataset.world": 0}))
    frame = FRAMES[rows](load_runs(made))
    columns, lines = parsed(latex_table(frame, style, [NASTY]))
    assert len(lines) == len(frame) + 1
    for line in lines:
        spans = sum(int(found) - 1 for cell in line for found in re.findall(r"\\multicolumn\{(\d)\}", cell))
        assert len(line) + spans == columns
    assert any("input" in cell for line in lines for cell in line)  # as text


def test_figures_intervals_and_the_best(make_run: MakeRun) -> None:
    frame = FRAMES["arms"](load_runs(folders(make_run))).with_columns(["arm", "knowledge_left", "utility_kept"])
    _, (heads, eru, npo) = parsed(latex_table(frame, "booktabs"))
    assert heads[0].endswith("arm") and heads[1] == r"\multicolumn{2}{c}{knowledge left}"
    assert eru[1] == r"{\bfseries 0.10}" and npo[1] == "0.31"
    assert eru[2] == r"{\scriptsize [$-$0.15, 0.35]}"
    assert r"\bfseries 0.10 &" in latex_table(frame, "siunitx") and "S[table-format=1.2," in latex_table(
        frame, "siunitx"
    )


def test_two_runs_have_no_interval(make_run: MakeRun) -> None:
    frame = FRAMES["arms"](load_runs(folders(make_run, worlds=2))).with_columns(["arm", "knowledge_left"])
    assert "scriptsize" not in latex_table(frame, "booktabs")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex here")
@pytest.mark.parametrize("style", STYLES)
def test_latex_compiles_it(make_run: MakeRun, tmp_path: Path, style: str) -> None:
    made = [*folders(make_run), make_run("nasty", config={"method.name": NASTY})]
    table = latex_table(FRAMES["arms"](load_runs(made)), style)
    packages = "booktabs" if style == "booktabs" else "booktabs,siunitx"
    page = rf"\documentclass{{article}}\usepackage{{{packages}}}\begin{{document}}{table}\end{{document}}"
    (tmp_path / "page.tex").write_text(page)
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
