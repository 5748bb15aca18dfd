"""Names of a run's oracles in scores.json: "oracle" is the first one; "oracle@2", "oracle@3", ... are the others."""

from __future__ import annotations

from collections.abc import Iterable

ORACLE = "oracle"


def oracle_roles(count: int) -> list[str]:
    """Returns the roles of `count` oracles, in order."""
    return [ORACLE if number == 1 else f"{ORACLE}@{number}" for number in range(1, count + 1)]


def oracles_among(roles: Iterable[str]) -> list[str]:
    """Returns those of the roles that are oracles, in their order."""
    return [role for role in roles if role.partition("@")[0] == ORACLE]


def seeds_after_first(role: str) -> int:
    """Returns how many seeds after `target.seed` a learned model has its own: 2 for "oracle@3", 0 for the target."""
    number = role.partition("@")[2]
    return int(number) - 1 if number else 0
