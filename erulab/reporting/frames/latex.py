"""Writes a frame as a LaTeX table for a paper: booktabs rules, means with intervals, the best in bold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erulab.reporting import escape
from erulab.reporting.best import best_places
from erulab.reporting.frames.files import bounds_of, is_folded
from erulab.reporting.frames.frame import Frame
from erulab.reporting.frames.run_rows import MEASURABLE
from erulab.reporting.numbers import number
from erulab.reporting.utility import COLLAPSE

STYLES = ("booktabs", "siunitx")
# How columns are headed in a paper; others by their names.
HEADINGS = {
    "knowledge_left": "knowledge left",
    "attack/worst/knowledge_left": "at worst",
    "utility_kept": "utility kept",
}
LARGE = 1e4  # figures from here on are written as powers of ten
FEWEST = 3  # runs of a mean whose t-interval is shown: that of two runs is 13 standard errors wide


def latex_table(frame: Frame, style: str, notes: Sequence[str] = ()) -> str:
    """Returns a `tabular` of the brief columns; comments say which packages it needs, and what bold means.

    Args:
        frame: its `brief` columns are written; the interval of a figure stands beside its value.
        style: `booktabs`, or `siunitx`, which aligns figures at their points (siunitx 3).
        notes: comments, one line each.
    """
    names = [name for name in frame.brief if not is_folded(frame, name)]
    columns = [_latex_column(frame, name, style) for name in names]
    packages = "booktabs" if style == "booktabs" else "booktabs, siunitx"
    lines = [f"% needs \\usepackage{{{packages}}}"]
    lines += [f"% {escape.visible(note)}" for note in notes]
    if any(r"\bfseries" in cell for column in columns for cell in column.cells):
        lines.append("% bold: the best value of a column, without collapsed models; intervals of others may hold it")
    lines.append(rf"\begin{{tabular}}{{{''.join(column.form for column in columns)}}}")
    lines += [r"\toprule", _line([column.heading for column in columns]), r"\midrule"]
    lines += [_line([column.cells[place] for column in columns]) for place in range(len(frame))]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


@dataclass(frozen=True)
class _LatexColumn:
    """One column of a frame; a figure and its interval are two columns of the table, joined by `&` in each cell."""

    form: str
    heading: str
    cells: Sequence[str]


def _latex_column(frame: Frame, name: str, style: str) -> _LatexColumn:
    column = frame.columns[name]
    heading = escape.latex(heading_of(name))
    if not column.is_figure:
        form = "l" if column.kind in (str, bool) else "r"
        return _LatexColumn(form, heading, [_name_cell(value) for value in column.values])
    values = [number(value) for value in column.values]
    best = best_places(name, values, _collapsed(frame), _measurable(frame))
    powers = name == "forget_quality" or any(value is not None and abs(value) >= LARGE for value in values)
    figures = [_figure(value, style, bold=place in best, powers=powers) for place, value in enumerate(values)]
    intervals = [_interval(frame, name, place, powers=powers) for place in range(len(values))]
    form = _number_form(values, powers) if style == "siunitx" else "r"
    if any(intervals):
        cells = [f"{figure} & {interval}" for figure, interval in zip(figures, intervals, strict=True)]
        return _LatexColumn(f"{form}@{{\\,}}l", rf"\multicolumn{{2}}{{c}}{{{heading}}}", cells)
    return _LatexColumn(form, f"{{{heading}}}", figures)


def _collapsed(frame: Frame) -> list[bool]:
    """Tells for each row whether the model lost more than half of its utility."""
    if "utility_kept" not in frame.columns:
        return [False] * len(frame)
    shares = [number(value) for value in frame.columns["utility_kept"].values]
    return [share is not None and share < COLLAPSE for share in shares]


def _measurable(frame: Frame) -> list[bool]:
    """Tells for each row whether its target knows enough for knowledge left to mean something."""
    column = frame.columns.get(MEASURABLE)
    return [value is not False for value in column.values] if column is not None else [True] * len(frame)


def heading_of(name: str) -> str:
    """Returns the words above a column: `after relearn` for knowledge left after that attack."""
    if name in HEADINGS:
        return HEADINGS[name]
    group, _, rest = name.partition("/")
    attack, _, figure = rest.rpartition("/")
    return f"after {attack}" if group == "attack" and figure == "knowledge_left" else name


def _name_cell(value: object) -> str:
    if value is None:
        return ""
    # LaTeX would read a cell that opens with a bracket or a star as an argument of the line end before it.
    text = escape.latex(str(value).lower() if isinstance(value, bool) else value)
    return f"{{}}{text}" if text.startswith(("[", "*")) else text


def _figure(value: float | None, style: str, *, bold: bool, powers: bool) -> str:
    if value is None:
        return "{--}"
    if style == "booktabs":
        shown = _in_text(value, powers=powers)
        return rf"{{\bfseries {shown}}}" if bold else shown
    text = f"{value:.2e}" if powers else f"{round(value, 2) + 0.0:.2f}"
    return rf"\bfseries {text}" if bold else text


def _interval(frame: Frame, name: str, place: int, *, powers: bool) -> str:
    low, high = bounds_of(frame, name, place)
    counts = frame.columns.get(f"{name}_n")
    runs = None if counts is None else counts.values[place]
    if low is None or high is None or (isinstance(runs, int) and runs < FEWEST):
        return ""
    return rf"{{\scriptsize [{_in_text(low, powers=powers)}, {_in_text(high, powers=powers)}]}}"


def _in_text(value: float, *, powers: bool) -> str:
    """Writes a figure outside of siunitx's columns: its minus as a sign of mathematics, not as a hyphen."""
    if powers and value:
        digits, _, power = f"{value:.2e}".partition("e")
        return rf"${digits}\cdot 10^{{{int(power)}}}$"
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "$-$")


def _number_form(values: Sequence[float | None], powers: bool) -> str:
    """Returns the siunitx column that is as wide as its widest value."""
    known = [value for value in values if value is not None]
    sign = "-" if any(round(value, 2) < 0 for value in known) else ""
    whole = 1 if powers else max((len(f"{abs(value):.2f}") - 3 for value in known), default=1)
    exponent = "e2" if powers else ""
    return f"S[table-format={sign}{whole}.2{exponent},detect-weight,mode=text]"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
