"""How figures are written for a person: `.97`, `-.30`, `12.3`, `1.9e-23`, and a dash where there is none."""

from __future__ import annotations

import math
from typing import Any

MISSING = "–"


def number(value: Any) -> float | None:
    """The value as a float, or None where a file holds null, NaN or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def short(value: float | None, digits: int = 2) -> str:
    """Fixed digits without a leading zero; tiny values in powers of ten."""
    if value is None:
        return MISSING
    if value != 0 and abs(value) < 10.0**-digits / 2:
        return f"{value:.1e}"
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def signed(value: float | None) -> str:
    """A value whose sign matters, such as K: two digits, and no power of ten for what is as good as 0."""
    if value is None:
        return MISSING
    return short(round(value, 2) + 0.0)


def interval(low: float | None, high: float | None) -> str:
    """`[low, high]`, or nothing where an end is missing."""
    return "" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"


def seconds(value: float | None) -> str:
    """`8.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if value is None:
        return MISSING
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def thousands(value: float | None) -> str:
    """A count: `1,234,567`."""
    return MISSING if value is None else f"{value:,.0f}"


def power(value: float | None) -> str:
    """A figure of any size: `3.14e14`."""
    return MISSING if value is None else f"{value:.2e}".replace("e+", "e")


def gigabytes(value: float | None) -> str:
    """Bytes in units of 1e9: `.52 GB`."""
    return MISSING if value is None else f"{short(value / 1e9)} GB"
