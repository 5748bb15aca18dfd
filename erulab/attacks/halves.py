"""The validation half of the forgotten facts, by which an attacker chooses, and the half that is reported."""

from __future__ import annotations

from collections.abc import Iterable

from erulab import draws


def validation_facts(facts: Iterable[str], seed: int) -> frozenset[str]:
    """Half of the facts (of an odd number the smaller half), drawn by the seed alone: the same for every attack."""
    ordered = sorted(set(facts), key=lambda fact: (draws.seed_of(seed, "attack", "validation", fact), fact))
    return frozenset(ordered[: len(ordered) // 2])
