"""Savings on learning curves made by hand."""

from __future__ import annotations

from erulab.attacks.judging.savings import savings, steps_to

ORACLE = [(0, 0.0), (10, 0.2), (20, 0.5), (30, 0.9)]


def test_the_first_step_at_the_level_counts() -> None:
    assert [steps_to(ORACLE, tau) for tau in (0.0, 0.1, 0.5, 0.51, 0.95)] == [0, 10, 20, 30, None]


def test_steps_saved_are_a_share_of_the_oracle_s() -> None:
    hidden = [(0, 0.1), (5, 0.6), (10, 0.4)]  # it falls again: it has been there
    assert savings(hidden, ORACLE, 0.5) == {"tau": 0.5, "steps_unlearned": 5, "steps_oracle": 20, "savings": 0.75}
    assert savings(ORACLE, ORACLE)["savings"] == 0.0  # as slow as one that never knew
    assert savings([(0, 0.7)], ORACLE)["savings"] == 1.0  # nothing had to be relearned
    assert savings([(0, -1.0), (30, 0.5)], ORACLE)["savings"] == -0.5


def test_savings_that_nobody_can_tell_are_none() -> None:
    never, known = [(0, 0.0), (30, 0.3)], [(0, 0.9)]
    assert savings(never, ORACLE) == {"tau": 0.5, "steps_unlearned": None, "steps_oracle": 20, "savings": None}
    assert savings(ORACLE, never)["savings"] is None and savings(ORACLE, known)["savings"] is None
