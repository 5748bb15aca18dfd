"""A frame: rows under named columns of one type each. Filters, sorts and chooses; knows no runs and no file formats."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from erulab.errors import ConfigError

Value = str | float | int | bool | None
LARGEST = 2**63  # whole numbers from here on have no 64 bits
NEAR = 5  # names that the line about an unknown column offers at most


@dataclass(frozen=True)
class Column:
    """The values of one column, None where a row has none.

    kind: type of all other values.
    is_figure: whether they are measured, and not settings or names.
    """

    values: tuple[Value, ...]
    kind: type
    is_figure: bool = False


@dataclass(frozen=True)
class Frame:
    """Rows under named columns.

    columns: name -> column, in order; all have as many values as there are rows.
    shown: the columns of a data file, unless others are chosen. The rest can be chosen, filtered and sorted by.
    brief: the columns of a table for people, unless others are chosen.
    """

    columns: Mapping[str, Column]
    shown: tuple[str, ...]
    brief: tuple[str, ...]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).values) if self.columns else 0

    def column(self, name: str, asked_by: str) -> Column:
        """Returns a column.

        Args:
            name: of the column.
            asked_by: the option that names it, for the message.
        Raises:
            ConfigError: there is no such column; the line offers near names.
        """
        if name in self.columns:
            return self.columns[name]
        near = near_names(name, self.columns)
        offer = f"; near: {', '.join(near)}" if near else ""
        raise ConfigError(f"{asked_by}: no column {name!r}{offer}; --format csv has the names in its first line")

    def with_columns(self, names: Sequence[str]) -> Frame:
        """Returns the frame with these columns as the chosen ones.

        Raises:
            ConfigError: there is no such column.
        """
        for name in names:
            self.column(name, "--columns")
        return replace(self, shown=tuple(names), brief=tuple(names))

    def sorted_by(self, name: str) -> Frame:
        """Returns the rows in ascending order of a column, in descending order if its name follows a minus.

        Rows without a value come last.

        Raises:
            ConfigError: there is no such column.
        """
        down = name.startswith("-")
        values = self.column(name.removeprefix("-"), "--sort").values
        known = [place for place, value in enumerate(values) if value is not None]
        known.sort(key=lambda place: _ordered(values[place]), reverse=down)
        return self._rows(known + [place for place, value in enumerate(values) if value is None])

    def where(self, name: str, accepts: Callable[[Value], bool]) -> Frame:
        """Returns the rows whose value in a column is accepted."""
        return self._rows([place for place, value in enumerate(self.columns[name].values) if accepts(value)])

    def rows(self, names: Sequence[str]) -> list[tuple[Value, ...]]:
        """Returns the rows, each as its values in these columns."""
        return list(zip(*(self.columns[name].values for name in names), strict=True))

    def _rows(self, places: Sequence[int]) -> Frame:
        columns = {
            name: replace(column, values=tuple(column.values[place] for place in places))
            for name, column in self.columns.items()
        }
        return replace(self, columns=columns)


def make_column(values: Iterable[Any], *, is_figure: bool = False) -> Column:
    """Returns a column of one type: bool, int, float, or text if the values are of several or of no such type.

    Lists and dicts become JSON. Numbers that no file format holds are texts (`inf`) or floats (of more than 64 bits).
    """
    given: list[Any] = [str(v) if isinstance(v, float) and not math.isfinite(v) else v for v in values]
    kinds = {type(value) for value in given if value is not None}
    if kinds and kinds <= {int, float}:
        large = any(abs(value) >= LARGEST for value in given if value is not None)
        kind = float if float in kinds or is_figure or large else int
        return Column(tuple(None if value is None else kind(value) for value in given), kind, is_figure)
    if kinds == {bool}:
        return Column(tuple(given), bool, is_figure)
    if not kinds and is_figure:
        return Column(tuple(given), float, is_figure)
    texts = (None if v is None else v if isinstance(v, str) else json.dumps(v) for v in given)
    return Column(tuple(texts), str, False)


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Returns the names that one may have meant: spelled alike, or with this one as a part."""
    names = list(known)
    alike = difflib.get_close_matches(name, names, n=NEAR, cutoff=0.6)
    return list(dict.fromkeys([*alike, *(one for one in names if name and name.lower() in one.lower())]))[:NEAR]


def _ordered(value: Value) -> Any:
    return value.lower() if isinstance(value, str) else value
