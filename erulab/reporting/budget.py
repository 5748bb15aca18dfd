"""What an attacker gets for its budget: every attempt along its steps, and the best there is up to each cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from erulab.reporting.attack_rows import AttackRow, Standing, attack_label, headline_rows, setting_words, standing_of
from erulab.reporting.load import MODELS
from erulab.reporting.numbers import number

BUDGETS = ("flops", "seconds")
KEPT_GAP = 0.8  # as attacks.judging.figures.why_not_valid asks of a row, which cannot be imported here: it wants numpy


@dataclass(frozen=True)
class Spent:
    """K after an attack that took the attacker `cost`; `label`: attack and setting."""

    cost: float
    value: float
    label: str


@dataclass(frozen=True)
class Course:
    """An attack's attempts that differ in their steps only: model -> headline figure, and K, after each of them."""

    label: str
    metric: str
    valid: bool
    steps: tuple[float, ...]
    figures: dict[str, tuple[float | None, ...]]
    residual: tuple[float | None, ...]


def spent(rows: Sequence[AttackRow], budget: str) -> list[Spent]:
    """A point for each headline row that counts, and for each of its attempts that leaves the target its gap.

    Args:
        budget: one of BUDGETS.
    """
    heads = headline_rows(rows)
    found = []
    for row in heads:
        if standing_of(row) is not Standing.counts:
            continue
        for one in (row, *(attempt for attempt in row["attempts"] if _keeps_gap(attempt, row))):
            cost, value = number(one[budget]), number(one["residual_attacked"])
            if cost is not None and value is not None:
                found.append(Spent(cost, value, attack_label(row, heads)))
    return found


def envelope(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """(cost, value) where the best value so far rises, by cost: what an attacker with that budget can have.

    Args:
        points: (cost, value), in any order; of equal costs the best one stands.
    """
    best: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or value > best[-1][1]:
            best.append((cost, value))
    return best


def courses(rows: Sequence[AttackRow]) -> list[Course]:
    """The learning curves that attacks with several attempts left, at least two points each."""
    heads = headline_rows(rows)
    found = []
    for row in heads:
        apart: dict[str, list[dict[str, Any]]] = {}
        for one in row["attempts"]:
            apart.setdefault(json.dumps(_but_steps(one["chosen"]), sort_keys=True), []).append(one)
        for attempts in apart.values():
            ordered = sorted(attempts, key=_steps)
            if len({_steps(one) for one in ordered}) > 1:
                words = setting_words(_but_steps(ordered[0]["chosen"]))
                found.append(_course(f"{attack_label(row, heads)} {words}".rstrip(), row, ordered))
    return found


def _course(label: str, row: AttackRow, attempts: Sequence[dict[str, Any]]) -> Course:
    figures = {model: tuple(number(one[f"attacked_{model}"]) for one in attempts) for model in MODELS}
    return Course(
        label,
        str(row["metric"]),
        row["valid"] is True,
        tuple(_steps(one) for one in attempts),
        figures,
        tuple(number(one["residual_attacked"]) for one in attempts),
    )


def _keeps_gap(attempt: dict[str, Any], row: AttackRow) -> bool:
    """Whether an attempt, by the gap of target and oracle, is valid as its row must be; its utility is not written."""
    target, oracle = number(row["target"]), number(row["oracle"])
    attacked = number(attempt["attacked_target"]), number(attempt["attacked_oracle"])
    if target is None or oracle is None or attacked[0] is None or attacked[1] is None:
        return True
    return attacked[0] - attacked[1] >= KEPT_GAP * (target - oracle)


def _steps(attempt: dict[str, Any]) -> float:
    """Of this attempt alone where it says so; else those that the attacker has taken up to its end."""
    own = number(attempt["chosen"].get("steps"))
    return float(attempt["steps"]) if own is None else own


def _but_steps(chosen: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in chosen.items() if key != "steps"}
