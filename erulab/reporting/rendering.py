"""Renders a table of figures and texts as text, Markdown, CSV, LaTeX or HTML, each with its own escaping."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from erulab.reporting import escape
from erulab.reporting.numbers import interval, short, signed

FORMATS = ("text", "md", "csv", "latex", "html")


@dataclass(frozen=True)
class Cell:
    """A text, or a figure with its interval and the number of rows it was measured on.

    written: how the figure is shown, if two digits do not suit it.
    """

    text: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    is_figure: bool = False
    digits: int = 2
    written: str = ""

    @property
    def shown(self) -> str:
        """The figure as it is shown: value, interval, n in parentheses. Texts are not yet escaped."""
        if not self.is_figure or self.value is None:
            return self.text
        # Knowledge left has an interval; its sign matters more than powers of ten near 0.
        value = self.written or (signed(self.value) if self.low is not None else short(self.value, self.digits))
        parts = [value, interval(self.low, self.high), f"({self.n})" if self.n is not None else "", self.text]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings; `notes` explain the figures."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def without_empty_columns(self) -> Table:
        """Returns the table without the columns in which every cell is empty."""
        kept = [
            i for i, column in enumerate(_columns(self)) if any(cell.text or cell.value is not None for cell in column)
        ]
        headings = tuple(self.headings[i] for i in kept)
        return replace(self, headings=headings, rows=tuple(tuple(row[i] for i in kept) for row in self.rows))

    def render(self, format: str) -> str:
        """Returns the table in one of FORMATS, with every text escaped for it."""
        renderers = {"text": _as_text, "md": _as_markdown, "csv": _as_csv, "latex": _as_latex, "html": _as_html}
        return renderers[format](self)

    def _repr_html_(self) -> str:
        """Shows the table in a notebook."""
        return self.render("html")


def _with_n_in_headings(table: Table) -> Table:
    """Moves n into the heading of each column whose figures share it."""
    headings, columns = [], []
    for heading, column in zip(table.headings, _columns(table), strict=True):
        counts = {cell.n for cell in column if cell.value is not None}
        shared = next(iter(counts)) if len(counts) == 1 else None
        headings.append(heading if shared is None else f"{heading} (n={shared})")
        columns.append(column if shared is None else tuple(replace(cell, n=None) for cell in column))
    return replace(table, headings=tuple(headings), rows=tuple(zip(*columns, strict=True)))


def _columns(table: Table) -> list[tuple[Cell, ...]]:
    return [tuple(row[i] for row in table.rows) for i in range(len(table.headings))]


def _as_text(table: Table) -> str:
    """Renders the table as text. Headings have one word per line, so that columns are as narrow as their figures."""
    table = _with_n_in_headings(table)
    words = [escape.visible(heading).split(" ") for heading in table.headings]
    height = max(len(column) for column in words)
    grid = [[[""] * (height - len(column)) + column for column in words][i] for i in range(len(words))]
    heads = [[column[line] for column in grid] for line in range(height)]
    body = [[escape.visible(cell.shown) for cell in row] for row in table.rows]
    widths = [max(len(row[i]) for row in heads + body) for i in range(len(words))]
    right = [any(row[i].is_figure for row in table.rows) for i in range(len(words))]

    def line(texts: Sequence[str]) -> str:
        cells = zip(texts, widths, right, strict=True)
        return "  ".join(
            text.rjust(width) if at_right else text.ljust(width) for text, width, at_right in cells
        ).rstrip()

    lines = [*map(line, heads), "  ".join("-" * width for width in widths), *map(line, body)]
    return "\n".join([*lines, *map(escape.visible, table.notes)]) + "\n"


def _as_markdown(table: Table) -> str:
    def line(texts: Sequence[str]) -> str:
        return f"| {' | '.join(texts)} |"

    table = _with_n_in_headings(table)
    lines = [line([escape.markdown(h) for h in table.headings]), line(["---"] * len(table.headings))]
    for row in table.rows:
        # Figures are our own text: they need no escaping and are easier to read without it.
        lines.append(line([cell.shown if cell.is_figure else escape.markdown(cell.shown) for cell in row]))
    notes = [f"\n{escape.markdown(note)}" for note in table.notes]
    return "\n".join([*lines, *notes]) + "\n"


def _as_csv(table: Table) -> str:
    """Renders the table as CSV. Figures have full precision; interval and n have columns of their own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = [_csv_parts(column) for column in _columns(table)]
    writer.writerow(
        [
            escape.csv_cell(f"{heading} {part}".rstrip())
            for heading, names in zip(table.headings, parts, strict=True)
            for part in names
        ]
    )
    for row in table.rows:
        writer.writerow([_csv_value(cell, part) for cell, names in zip(row, parts, strict=True) for part in names])
    return out.getvalue()


def _csv_parts(column: Sequence[Cell]) -> list[str]:
    parts = [""]
    if any(cell.low is not None for cell in column):
        parts += ["low", "high"]
    if any(cell.n is not None for cell in column):
        parts.append("n")
    if any(cell.is_figure and cell.text for cell in column):
        parts.append("note")
    return parts


def _csv_value(cell: Cell, part: str) -> str:
    if not cell.is_figure:
        return escape.csv_cell(cell.text) if part == "" else ""
    if part == "note":
        return escape.csv_cell(cell.text)
    value = {"": cell.value, "low": cell.low, "high": cell.high, "n": cell.n}[part]
    return "" if value is None else repr(value)


def _as_latex(table: Table) -> str:
    table = _with_n_in_headings(table)
    columns = "".join("r" if any(row[i].is_figure for row in table.rows) else "l" for i in range(len(table.headings)))
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines.append(" & ".join(escape.latex(h) for h in table.headings) + r" \\")
    lines.append(r"\midrule")
    # LaTeX would read a cell that opens with a bracket as an argument of the line end before it.
    lines += [" & ".join(f"{{}}{escape.latex(cell.shown)}" for cell in row) + r" \\" for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {escape.visible(note)}" for note in table.notes)]) + "\n"


def _as_html(table: Table) -> str:
    def cells(tag: str, items: Sequence[tuple[str, bool]]) -> Markup:
        return Markup("").join(
            Markup("<{tag}{style}>{text}</{tag}>").format(
                tag=Markup(tag), style=Markup(' class="figure"') if figure else "", text=escape.visible(text)
            )
            for text, figure in items
        )

    table = _with_n_in_headings(table)
    headings = [(h, any(row[i].is_figure for row in table.rows)) for i, h in enumerate(table.headings)]
    head = Markup("<thead><tr>{}</tr></thead>").format(cells("th", headings))
    body = Markup("\n").join(
        Markup("<tr>{}</tr>").format(cells("td", [(cell.shown, cell.is_figure) for cell in row])) for row in table.rows
    )
    notes = Markup("").join(Markup('<p class="note">{}</p>').format(escape.visible(note)) for note in table.notes)
    return str(Markup('<div class="scroll"><table>{}<tbody>\n{}\n</tbody></table></div>{}\n').format(head, body, notes))
