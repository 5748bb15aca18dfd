"""What an attacker can have for a budget."""

from __future__ import annotations

import random
from typing import Any

from erulab.reporting.budget import courses, envelope, spent
from tests.reporting.conftest import attack_row, choice_row


def attempt(residual: float | None, flops: float, **chosen: Any) -> dict[str, Any]:
    return {
        "chosen": chosen,
        "steps": 99,
        "flops": flops,
        "seconds": flops / 10,
        "attacked_target": 3.0,
        "attacked_unlearned": residual,
        "attacked_oracle": -1.0,
        "residual_attacked": residual,
        "low": None,
        "high": None,
    }


def test_the_envelope_is_the_running_maximum() -> None:
    draw = random.Random(0)
    points = [(draw.randrange(20), draw.random()) for _ in range(60)]
    best = envelope(points)
    # By hand: at every cost the best of all that cost no more.
    for cost in range(20):
        affordable = [value for other, value in points if other <= cost]
        told = [value for other, value in best if other <= cost]
        assert max(affordable) == max(told) == told[-1]
    assert best == sorted(best) and len({cost for cost, _ in best}) == len(best)
    assert envelope([]) == []


def test_only_what_counts_is_a_point() -> None:
    rows = [
        attack_row("relearn", {"samples": 5}, 0.2, flops=5.0, attempts=[attempt(0.1, 1.0), attempt(None, 2.0)]),
        choice_row("relearn", {"samples": 5}, 0.9),
        attack_row("relearn", {"samples": 9}, 0.8, flops=7.0, valid=False, attempts=[attempt(0.7, 3.0)]),
        attack_row("prune", {"share": 0.5}, None, flops=1.0, attempts=[attempt(0.6, 3.0)]),
        attack_row("gcg", {}, 0.3, flops=None),  # a model whose products cannot be counted
    ]
    rows[0] |= {"target": 2.5, "oracle": -2.5}  # 5, of which 4 are 80 %
    rows[0]["attempts"].append(attempt(0.9, 4.0) | {"attacked_target": 2.9})  # destroys the target: 3.9
    found = spent(rows, "flops")
    assert [(point.cost, point.value, point.label) for point in found] == [
        (5.0, 0.2, "relearn samples=5"),
        (1.0, 0.1, "relearn samples=5"),
    ]
    assert [point.cost for point in spent(rows, "seconds")] == [3.5, 0.1, 3.5]


def test_learning_curves_are_of_attempts_that_differ_in_steps() -> None:
    attempts = [attempt(0.3, 9.0, lr=0.1, steps=8), attempt(0.1, 1.0, lr=0.1, steps=4)]
    attempts.append(attempt(0.2, 1.0, lr=1, steps=4))  # alone
    rows = [
        attack_row("relearn", {"samples": 5}, 0.3, attempts=attempts),
        attack_row("probe", {}, 0.3, attempts=[attempt(0.1, 1.0, layer=1), attempt(0.2, 2.0, layer=2)]),
    ]
    (course,) = courses(rows)
    assert course.label == "relearn samples=5 lr=0.1" and course.steps == (4, 8) and course.residual == (0.1, 0.3)
    assert course.figures["target"] == (3.0, 3.0) and course.valid
