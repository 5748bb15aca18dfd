"""The range checks that every options class uses."""

from __future__ import annotations

import math
from typing import Any

MOST_EPOCHS = 1_000_000


def require(holds: bool, field_name: str, allowed: str, value: Any) -> None:
    """Raises ValueError("<field> must be <allowed>, got <value>") unless `holds` is true.

    Args:
        holds: whether the value is allowed.
        field_name: name of the option.
        allowed: what is allowed, in words.
        value: the value that was given.
    """
    if not holds:
        raise ValueError(f"{field_name} must be {allowed}, got {value}")


def require_positive(field_name: str, value: float | None) -> None:
    """Raises ValueError unless the value is null, or finite and > 0."""
    require(value is None or (math.isfinite(value) and value > 0), field_name, "> 0", value)


def require_not_negative(field_name: str, value: float | None) -> None:
    """Raises ValueError unless the value is null, or finite and >= 0."""
    require(value is None or (math.isfinite(value) and value >= 0), field_name, ">= 0", value)


def require_epochs(field_name: str, value: float) -> None:
    """Raises ValueError unless the value is > 0 and small enough to be counted in steps."""
    require(0 < value <= MOST_EPOCHS, field_name, f"> 0 and at most {MOST_EPOCHS}", value)


def require_fraction(field_name: str, value: float) -> None:
    """Raises ValueError unless the value is in [0, 1]."""
    require(0 <= value <= 1, field_name, "between 0 and 1", value)
