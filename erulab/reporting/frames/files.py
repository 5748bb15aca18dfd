"""Writes a frame as a data file (csv, json, parquet), as a pandas frame, or as a table for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from erulab.reporting import escape
from erulab.reporting.frames.frame import Column, Frame, Value
from erulab.reporting.numbers import number, short
from erulab.reporting.rendering import Cell, Table

if TYPE_CHECKING:
    import pandas

DATA_FORMATS = ("csv", "json", "parquet")
SMALL, LARGE = 1e-3, 1e5  # absolute values beyond these are written as powers of ten in tables


def data_file(frame: Frame, format: str) -> bytes:
    """Returns the shown columns in one of DATA_FORMATS, with full precision; a missing value is empty or null."""
    if format == "parquet":
        return _as_parquet(frame)
    return (_as_csv(frame) if format == "csv" else _as_json(frame)).encode()


def pandas_frame(frame: Frame) -> pandas.DataFrame:
    """Returns all shown columns as a pandas frame: numbers as float64 or Int64, flags as boolean, texts as object."""
    import pandas  # takes a second, and only Python asks for it

    kinds: dict[type, Any] = {float: "float64", int: "Int64", bool: "boolean", str: "object"}
    return pandas.DataFrame(
        {
            name: pandas.Series(list(frame.columns[name].values), dtype=kinds[frame.columns[name].kind])
            for name in frame.shown
        }
    )


def people_table(frame: Frame, notes: Sequence[str] = ()) -> Table:
    """Returns the brief columns as a table; the interval and the count of a figure stand in its cell."""
    cells = [
        [_cell(frame, name, place) for name in frame.brief if not is_folded(frame, name)] for place in range(len(frame))
    ]
    headings = tuple(name for name in frame.brief if not is_folded(frame, name))
    return Table(headings, tuple(map(tuple, cells)), tuple(notes))


def bounds_of(frame: Frame, name: str, place: int) -> tuple[float | None, float | None]:
    """Returns the ends of a figure's interval in one row; None where it has none."""
    ends = [frame.columns.get(f"{name}_{end}") for end in ("low", "high")]
    low, high = (None if one is None else number(one.values[place]) for one in ends)
    return low, high


def is_folded(frame: Frame, name: str) -> bool:
    """Tells whether a chosen column stands in the cells of another one: `x_low` in those of `x`."""
    return any(name == f"{other}{end}" for other in frame.brief for end in ("_low", "_high", "_n"))


def _cell(frame: Frame, name: str, place: int) -> Cell:
    column = frame.columns[name]
    value = column.values[place]
    if value is None or column.kind in (str, bool):
        text = "" if value is None else value if isinstance(value, str) else str(value).lower()
        return Cell(text, is_figure=column.is_figure)
    figure = float(value)
    if not column.is_figure:
        return Cell(value=figure, is_figure=True, written=f"{value:g}")
    low, high = bounds_of(frame, name, place)
    counts = frame.columns.get(f"{name}_n")
    n = None if counts is None else counts.values[place]
    extreme = figure != 0 and not SMALL <= abs(figure) < LARGE
    written = f"{figure:.2e}" if extreme and low is None else "" if low is not None else short(figure)
    return Cell(value=figure, low=low, high=high, n=n if isinstance(n, int) else None, is_figure=True, written=written)


def _as_csv(frame: Frame) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([escape.csv_cell(name) for name in frame.shown])
    writer.writerows([_csv_value(value) for value in row] for row in frame.rows(frame.shown))
    return out.getvalue()


def _csv_value(value: Value) -> str:
    if isinstance(value, str):
        return escape.csv_cell(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else repr(value)


def _as_json(frame: Frame) -> str:
    rows = [dict(zip(frame.shown, row, strict=True)) for row in frame.rows(frame.shown)]
    # ASCII only: a text of a config may hold half of a surrogate pair, which no file can.
    return json.dumps(rows, indent=1, allow_nan=False) + "\n"


def _as_parquet(frame: Frame) -> bytes:
    import pyarrow  # takes a moment, and only parquet needs it
    from pyarrow import parquet

    kinds = {float: pyarrow.float64(), int: pyarrow.int64(), bool: pyarrow.bool_(), str: pyarrow.string()}

    def array(column: Column) -> Any:
        values = [escape.visible(v) if isinstance(v, str) else v for v in column.values]
        return pyarrow.array(values, type=kinds[column.kind])

    out = io.BytesIO()
    parquet.write_table(pyarrow.table({escape.visible(name): array(frame.columns[name]) for name in frame.shown}), out)
    return out.getvalue()
