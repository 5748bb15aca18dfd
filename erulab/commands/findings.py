"""What the doctor says about one thing: found or missing, and the fix."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """`note`: erulab runs without it, but a person should know."""

    ok = "ok"
    note = "note"
    missing = "missing"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    what: its name.
    found: what is there, or what is wrong.
    fix: what to type; empty where nothing is to be done.
    """

    what: str
    health: Health
    found: str
    fix: str = ""


def ok(what: str, found: str) -> Finding:
    """Returns a finding with nothing to do."""
    return Finding(what, Health.ok, found)


def note(what: str, found: str, fix: str = "") -> Finding:
    """Returns a finding that stops no run."""
    return Finding(what, Health.note, found, fix)


def missing(what: str, found: str, fix: str = "") -> Finding:
    """Returns a finding that stops runs until it is mended."""
    return Finding(what, Health.missing, found, fix)
