"""Splits the forgotten facts: the validation half chooses among an attacker's attempts, the other half is reported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from erulab import draws
from erulab.attacks.base import Inapplicable
from erulab.evaluation.suites import forget_suites

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Row, Suite


def validation_facts(facts: Iterable[str], seed: int) -> frozenset[str]:
    """Returns the validation half of the facts (rounded down). It depends on the seed only, so all attacks share it."""
    ordered = sorted(set(facts), key=lambda fact: (draws.seed_of(seed, "attack", "validation", fact), fact))
    return frozenset(ordered[: len(ordered) // 2])


def forgotten_facts(benchmark: Benchmark) -> frozenset[str]:
    """Returns all facts that the forget and held-out suites phrase."""
    return frozenset(row.fact_id for suite in forget_suites(benchmark) for row in suite.rows)


def validation_half(benchmark: Benchmark, seed: int) -> frozenset[str]:
    """Returns the validation half of all facts that the forget and held-out suites phrase."""
    return validation_facts(forgotten_facts(benchmark), seed)


def reported_half(suites: Sequence[Suite], benchmark: Benchmark, seed: int) -> tuple[Suite, ...]:
    """Returns the suites without validation facts, for an attack that learns from these and has no choice to make."""
    half = validation_half(benchmark, seed)
    kept = [tuple(row for row in suite.rows if row.fact_id not in half) for suite in suites]
    return tuple(replace(suite, rows=rows) for suite, rows in zip(suites, kept, strict=True))


def validation_rows(benchmark: Benchmark, seed: int) -> list[Row]:
    """Returns the forget and held-out rows that phrase validation facts, each once: an attacker may train on them.

    Raises:
        Inapplicable: there is only one fact.
    """
    half = validation_half(benchmark, seed)
    rows = {row.id: row for suite in forget_suites(benchmark) for row in suite.rows if row.fact_id in half}
    if not rows:
        raise Inapplicable("it needs two facts to forget or more: one half to learn from and one to be scored on")
    return list(rows.values())
