"""What an attacker brings back for its budget."""

from __future__ import annotations

import random
from typing import Any

from erulab.reporting.budget import attack_costs, best_by_cost, learning_curves
from tests.reporting.conftest import attack_row, choice_row


def attempt(knowledge_left: float | None, flops: float, **chosen: Any) -> dict[str, Any]:
    return {
        "chosen": chosen,
        "steps": 99,
        "flops": flops,
        "seconds": flops / 10,
        "attacked_target": 3.0,
        "attacked_unlearned": knowledge_left,
        "attacked_oracle": -1.0,
        "knowledge_left_attacked": knowledge_left,
        "low": None,
        "high": None,
    }


def test_best_by_cost_is_the_running_maximum() -> None:
    draw = random.Random(0)
    points = [(draw.randrange(20), draw.random()) for _ in range(60)]
    best = best_by_cost(points)
    # Computed directly: at every cost, the highest value among the points that cost no more.
    for cost in range(20):
        affordable = [value for other, value in points if other <= cost]
        shown = [value for other, value in best if other <= cost]
        assert max(affordable) == max(shown) == shown[-1]
    assert best == sorted(best) and len({cost for cost, _ in best}) == len(best)
    assert best_by_cost([]) == []


def test_only_valid_rows_and_attempts_are_points() -> None:
    rows = [
        attack_row("relearn", {"samples": 5}, 0.2, flops=5.0, attempts=[attempt(0.1, 1.0), attempt(None, 2.0)]),
        choice_row("relearn", {"samples": 5}, 0.9),
        attack_row("relearn", {"samples": 9}, 0.8, flops=7.0, valid=False, attempts=[attempt(0.7, 3.0)]),
        attack_row("prune", {"share": 0.5}, None, flops=1.0, attempts=[attempt(0.6, 3.0)]),
        attack_row("gcg", {}, 0.3, flops=None),  # a model whose products cannot be counted
    ]
    rows[0] |= {"target": 2.5, "oracle": -2.5}  # 5, of which 1.5 are 30 %
    rows[0]["attempts"].append(attempt(0.9, 4.0) | {"attacked_target": 0.4})  # destroys the target: 1.4
    found = attack_costs(rows, "flops")
    assert [(point.cost, point.value, point.label) for point in found] == [
        (5.0, 0.2, "relearn samples=5"),
        (1.0, 0.1, "relearn samples=5"),
    ]
    assert [point.cost for point in attack_costs(rows, "seconds")] == [3.5, 0.1, 3.5]


def test_a_learning_curve_joins_attempts_that_differ_in_steps_only() -> None:
    attempts = [attempt(0.3, 9.0, lr=0.1, steps=8), attempt(0.1, 1.0, lr=0.1, steps=4)]
    attempts.append(attempt(0.2, 1.0, lr=1, steps=4))  # alone
    rows = [
        attack_row("relearn", {"samples": 5}, 0.3, attempts=attempts),
        attack_row("probe", {}, 0.3, attempts=[attempt(0.1, 1.0, layer=1), attempt(0.2, 2.0, layer=2)]),
    ]
    (curve,) = learning_curves(rows)
    assert curve.label == "relearn samples=5 lr=0.1" and curve.steps == (4, 8) and curve.knowledge_left == (0.1, 0.3)
    assert curve.figures["target"] == (3.0, 3.0) and curve.valid
