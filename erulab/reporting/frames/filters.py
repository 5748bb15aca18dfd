"""The filter language of `erulab.report`: COLUMN=A,B  COLUMN!=A  COLUMN<0.2  and so on. Nothing of it is executed."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence

from erulab.errors import ConfigError
from erulab.reporting.frames.frame import Column, Frame, Value

_FORM = re.compile(r"\s*([^=!<>]+?)\s*(!=|<=|>=|==|=|<|>)\s*(.*?)\s*", re.DOTALL)
_ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
HOW = "type 'COLUMN=A,B', 'COLUMN!=A', or 'COLUMN<0.2' (also <=, >, >=) in quotes"


def filtered(frame: Frame, filters: Sequence[str]) -> Frame:
    """Returns the rows that pass all filters.

    `=` accepts a value of a comma-separated list, `!=` every other; orders are for numbers. A row without a value
    passes `!=` only.

    Raises:
        ConfigError: a filter that cannot be read, names no column, or compares a text with a number.
    """
    for text in filters:
        found = _FORM.fullmatch(text)
        if found is None:
            raise ConfigError(f"--filter {text!r} cannot be read; {HOW}")
        name, sign, given = found.groups()
        column = frame.column(name, f"--filter {text!r}")
        frame = frame.where(name, _test(column, sign, given, text))
    return frame


def _test(column: Column, sign: str, given: str, text: str) -> Callable[[Value], bool]:
    """Returns the function that tells whether a value of the column passes."""
    if sign in _ORDERS:
        if column.kind not in (int, float):
            raise ConfigError(f"--filter {text!r}: the column has no numbers, which {sign} compares; use = or !=")
        bound, order = _as_number(given, text), _ORDERS[sign]
        return lambda value: isinstance(value, int | float) and order(value, bound)
    wanted = {_as_kind(part.strip(), column, text) for part in given.split(",")}
    return (lambda value: value not in wanted) if sign == "!=" else (lambda value: value in wanted)


def _as_kind(part: str, column: Column, text: str) -> Value:
    """Returns a typed value as the column holds it."""
    if column.kind is bool:
        if part.lower() not in ("true", "false"):
            raise ConfigError(f"--filter {text!r}: the column holds true and false, got {part!r}")
        return part.lower() == "true"
    return part if column.kind is str else _as_number(part, text)


def _as_number(part: str, text: str) -> float:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"--filter {text!r}: the column holds numbers, got {part!r}; {HOW}")
    return value
