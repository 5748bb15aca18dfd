"""Renders a table of figures and texts as text, Markdown, CSV, LaTeX or HTML, each with its own escaping."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from erulab.reporting import escape
from erulab.reporting.numbers import interval, short, signed

FORMATS = ("text", "md", "csv", "html")


@dataclass(frozen=True)
class Cell:
    """A text, or a figure with its interval and the number of rows it was measured on.

    written: how the figure is shown, if two digits do not suit it.
    link: a page that HTML links the text to, relative to the page; empty for none.
    best: whether HTML shows the figure in bold.
    """

    text: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    is_figure: bool = False
    digits: int = 2
    written: str = ""
    link: str = ""
    best: bool = False

    @property
    def figure(self) -> str:
        """The value of a figure as it is shown."""
        # Knowledge left has an interval; its sign matters more than powers of ten near 0.
        return self.written or (signed(self.value) if self.low is not None else short(self.value, self.digits))

    @property
    def shown(self) -> str:
        """The figure as it is shown: value, interval, n in parentheses. Texts are not yet escaped."""
        if not self.is_figure or self.value is None:
            return self.text
        parts = [self.figure, interval(self.low, self.high), f"({self.n})" if self.n is not None else "", self.text]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings; `notes` explain the figures.

    dimmed: places of rows that HTML shows in a weaker colour.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    dimmed: frozenset[int] = frozenset()

    def without_empty_columns(self) -> Table:
        """Returns the table without the columns in which every cell is empty."""
        kept = [
            i for i, column in enumerate(_columns(self)) if any(cell.text or cell.value is not None for cell in column)
        ]
        return self.with_columns(kept)

    def with_constant_columns_folded(self, always: Collection[str] = ()) -> Table:
        """Returns the table without the columns in which all of several rows have the same; a note has them.

        Args:
            always: headings of columns that stay.
        """
        folded: dict[int, str] = {}
        for place, column in enumerate(_columns(self) if len(self.rows) > 1 else []):
            texts = {cell.shown for cell in column}
            if len(texts) == 1 and self.headings[place] not in always:
                folded[place] = f"{self.headings[place]} {texts.pop()}".rstrip()
        if not folded:
            return self
        kept = [place for place in range(len(self.headings)) if place not in folded]
        note = f"The same in every row: {', '.join(folded.values())}."
        return replace(self.with_columns(kept), notes=(note, *self.notes))

    def with_columns(self, places: Sequence[int]) -> Table:
        """Returns the table with only the columns at these places, in their order."""
        headings = tuple(self.headings[i] for i in places)
        return replace(self, headings=headings, rows=tuple(tuple(row[i] for i in places) for row in self.rows))

    def render(self, format: str) -> str:
        """Returns the table in one of FORMATS, with every text escaped for it."""
        renderers = {"text": _as_text, "md": _as_markdown, "csv": _as_csv, "html": _as_html}
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


def _as_html(table: Table) -> str:
    """Renders the table for a page, whose script can sort and filter it: `data-value` holds the whole figure."""
    table = _with_n_in_headings(table)
    figures = [any(row[i].is_figure for row in table.rows) for i in range(len(table.headings))]
    head = Markup("").join(
        Markup("<th{}>{}</th>").format(Markup(' class="figure"') if figure else "", escape.visible(heading))
        for heading, figure in zip(table.headings, figures, strict=True)
    )
    body = Markup("\n").join(
        Markup("<tr{}>{}</tr>").format(
            Markup(' class="dimmed"') if place in table.dimmed else "", Markup("").join(map(_html_cell, row))
        )
        for place, row in enumerate(table.rows)
    )
    notes = Markup("").join(Markup('<p class="note">{}</p>').format(escape.visible(note)) for note in table.notes)
    frame = Markup('<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>\n{}\n</tbody></table></div>{}\n')
    return str(frame.format(head, body, notes))


def _html_cell(cell: Cell) -> Markup:
    if not cell.is_figure or cell.value is None:
        text = Markup("{}").format(escape.visible(cell.shown))
        if cell.link:
            text = Markup('<a href="{}">{}</a>').format(cell.link, text)
        return Markup("<td{}>{}</td>").format(Markup(' class="figure"') if cell.is_figure else "", text)
    value = Markup("<strong>{}</strong>" if cell.best else "{}").format(escape.visible(cell.figure))
    rest = escape.visible(replace(cell, written=" ").shown).strip()
    parts = Markup(" <small>{}</small>").format(rest) if rest else ""
    return Markup('<td class="figure" data-value="{}">{}{}</td>').format(repr(cell.value), value, parts)
