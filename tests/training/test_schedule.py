"""Learning rates in closed form."""

from __future__ import annotations

import math

import pytest

from erulab.options import Schedule
from erulab.training.schedule import learning_rate


def test_linear_rises_then_falls() -> None:
    rates = [learning_rate(1.0, step, 10, 0.2, Schedule.linear) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_cosine_is_half_way_in_the_middle() -> None:
    assert learning_rate(2.0, 50, 100, 0.0, Schedule.cosine) == pytest.approx(1.0)
    assert learning_rate(2.0, 25, 100, 0.0, Schedule.cosine) == pytest.approx(1 + math.cos(math.pi / 4))


def test_constant_stays() -> None:
    assert {learning_rate(0.3, step, 10, 0.0, Schedule.constant) for step in range(10)} == {0.3}
