"""Relates what an attack brings back to its cost: attempts along their steps, and the highest value up to each cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from erulab.reporting.attack_rows import AttackRow, Standing, attack_label, headline_rows, setting_words, standing_of
from erulab.reporting.load import MODELS
from erulab.reporting.numbers import number

BUDGETS = ("flops", "seconds")
KEPT_GAP = 0.3  # the limit of attacks/judging/figures.py, which needs numpy and is not imported here


@dataclass(frozen=True)
class AttackCost:
    """Knowledge left (`value`) after an attack that took the attacker `cost`.

    label: attack and setting.
    """

    cost: float
    value: float
    label: str


@dataclass(frozen=True)
class LearningCurve:
    """An attack's attempts that differ in their steps only.

    steps: the attacker's steps of each attempt.
    figures: model -> headline figure after each attempt.
    knowledge_left: knowledge left after each attempt.
    """

    label: str
    metric: str
    valid: bool
    steps: tuple[float, ...]
    figures: dict[str, tuple[float | None, ...]]
    knowledge_left: tuple[float | None, ...]


def attack_costs(rows: Sequence[AttackRow], budget: str) -> list[AttackCost]:
    """Collects cost and knowledge left of valid headline rows, and of their attempts that keep the target's gap.

    Args:
        rows: contents of attacks.json.
        budget: one of BUDGETS: `flops`, or `seconds`.
    """
    heads = headline_rows(rows)
    found = []
    for row in heads:
        if standing_of(row) is not Standing.counts:
            continue
        for one in (row, *(attempt for attempt in row["attempts"] if _keeps_gap(attempt, row))):
            cost, value = number(one[budget]), number(one["knowledge_left_attacked"])
            if cost is not None and value is not None:
                found.append(AttackCost(cost, value, attack_label(row, heads)))
    return found


def best_by_cost(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns (cost, value) wherever the highest value so far rises: what an attacker with that budget can bring back.

    Args:
        points: (cost, value) in any order; of equal costs the highest value counts.
    """
    best: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or value > best[-1][1]:
            best.append((cost, value))
    return best


def learning_curves(rows: Sequence[AttackRow]) -> list[LearningCurve]:
    """Collects the curves of attacks that tried several numbers of steps, each with at least two points."""
    heads = headline_rows(rows)
    found = []
    for row in heads:
        apart: dict[str, list[dict[str, Any]]] = {}
        for one in row["attempts"]:
            apart.setdefault(json.dumps(_without_steps(one["chosen"]), sort_keys=True), []).append(one)
        for attempts in apart.values():
            ordered = sorted(attempts, key=_attempt_steps)
            if len({_attempt_steps(one) for one in ordered}) > 1:
                words = setting_words(_without_steps(ordered[0]["chosen"]))
                found.append(_learning_curve(f"{attack_label(row, heads)} {words}".rstrip(), row, ordered))
    return found


def _learning_curve(label: str, row: AttackRow, attempts: Sequence[dict[str, Any]]) -> LearningCurve:
    figures = {model: tuple(number(one[f"attacked_{model}"]) for one in attempts) for model in MODELS}
    return LearningCurve(
        label,
        str(row["metric"]),
        row["valid"] is True,
        tuple(_attempt_steps(one) for one in attempts),
        figures,
        tuple(number(one["knowledge_left_attacked"]) for one in attempts),
    )


def _keeps_gap(attempt: dict[str, Any], row: AttackRow) -> bool:
    """Returns whether the attempt keeps enough of the target's gap to the oracle, by its estimate."""
    target, oracle = number(row["target"]), number(row["oracle"])
    attacked = number(attempt["attacked_target"]), number(attempt["attacked_oracle"])
    if target is None or oracle is None or attacked[0] is None or attacked[1] is None:
        return True
    return attacked[0] - attacked[1] >= KEPT_GAP * (target - oracle)


def _attempt_steps(attempt: dict[str, Any]) -> float:
    """Returns the attempt's own steps if it says so, otherwise the attacker's steps up to its end."""
    own = number(attempt["chosen"].get("steps"))
    return float(attempt["steps"]) if own is None else own


def _without_steps(chosen: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in chosen.items() if key != "steps"}
