"""The exit code of the command.

Hydra drops what the function under `hydra.main` returns, and a sweep's results too; raising instead would end a sweep
before its table. So each run records its code here, in the process that was typed, and the command reads the first one
that is not 0 once Hydra has returned.
"""

from __future__ import annotations

_codes: list[int] = []


def record_code(code: int) -> None:
    """Adds the exit code of one run."""
    _codes.append(code)


def recorded_code() -> int:
    """Returns the first recorded code that is not 0, or 0."""
    return next((code for code in _codes if code), 0)
