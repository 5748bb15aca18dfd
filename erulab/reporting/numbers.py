"""Writes figures for a person: `0.97`, `-0.30`, `12.3`, `1.9e-23`, and a dash where there is none."""

from __future__ import annotations

import math
from typing import Any

MISSING = "–"


def number(value: Any) -> float | None:
    """Returns the value as a float, or None if it is null, NaN, infinite or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def short(value: float | None, digits: int = 2) -> str:
    """Writes a value with fixed digits, and one that would round to 0 as a power of ten."""
    if value is None:
        return MISSING
    if value != 0 and abs(value) < 10.0**-digits / 2:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def signed(value: float | None) -> str:
    """Writes a value whose sign matters, such as knowledge left: two digits, and 0.00 for one that rounds to 0."""
    if value is None:
        return MISSING
    return short(round(value, 2) + 0.0)


def interval(low: float | None, high: float | None) -> str:
    """Writes `[0.09, 0.28]`; an empty text if an end is missing."""
    return "" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"


def percent(value: float | None) -> str:
    """Writes a share as `97 %`."""
    return MISSING if value is None else f"{value:.0%}".replace("%", " %")


def duration(value: float | None) -> str:
    """Writes a duration: `8.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if value is None:
        return MISSING
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def thousands(value: float | None) -> str:
    """Writes a count: `1,234,567`."""
    return MISSING if value is None else f"{value:,.0f}"


def power(value: float | None) -> str:
    """Writes a figure of any size: `3.14e14`."""
    return MISSING if value is None else f"{value:.2e}".replace("e+", "e")


def gigabytes(value: float | None) -> str:
    """Writes bytes in units of 1e9: `0.52 GB`."""
    return MISSING if value is None else f"{short(value / 1e9)} GB"


def size(value: float) -> str:
    """Writes bytes in the unit that suits them: `512 B`, `12.3 kB`, `4.2 MB`, `5.4 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f} B"
