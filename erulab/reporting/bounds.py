"""Reads an estimate with its intervals from scores.json or attacks.json, and writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erulab.evaluation.equivalence import Bounds
from erulab.reporting.numbers import interval, number, signed


def read_bounds(figures: Mapping[str, Any], value: str, prefix: str = "") -> Bounds | None:
    """Returns an estimate with its 95 % and 90 % intervals; None if one of the five numbers is missing.

    Args:
        figures: the entry that holds them.
        value: key of the estimate.
        prefix: what stands before `low`, `high`, `low90` and `high90` in the keys.
    """
    names = (value, *(f"{prefix}{end}" for end in ("low", "high", "low90", "high90")))
    found = [number(figures.get(name)) for name in names]
    return None if None in found else Bounds(*(end for end in found if end is not None))


def with_interval(found: Bounds) -> str:
    """Writes an estimate with its 95 % interval: `0.31, 95 % interval [0.22, 0.40]`."""
    return f"{signed(found.value)}, 95 % interval {interval(found.low, found.high)}"


def with_interval_90(found: Bounds) -> str:
    """Writes an estimate with the 90 % interval of the equivalence test: `0.02, 90 % interval [-0.02, 0.06]`."""
    return f"{signed(found.value)}, 90 % interval {interval(found.low90, found.high90)}"
