"""The exit code of this process. Hydra swallows what its task function returns, so the task records it here."""

from __future__ import annotations

_codes: list[int] = []


def record(code: int) -> None:
    """Adds the code of one run."""
    _codes.append(code)


def recorded() -> int:
    """The first code that is not 0, else 0."""
    return next((code for code in _codes if code), 0)
