"""The four words: decided cases by hand, and their error rates by simulation."""

from __future__ import annotations

import pytest

from erulab.evaluation.equivalence import (
    Bounds,
    Kept,
    Outcome,
    Withstood,
    facts_that_decide,
    judge_attacked,
    judge_knowledge_left,
    judge_utility,
)
from erulab.evaluation.measurable import why_not_measurable
from erulab.evaluation.row_score import RowScore
from tests.evaluation.simulated_verdicts import DATA, share_of_verdicts

MARGIN = 0.1


@pytest.mark.parametrize(
    ("value", "low", "low90", "high90", "high", "outcome"),
    [
        (0.0, -0.11, -0.09, 0.09, 0.11, Outcome.forgotten),  # the 90 % interval counts
        (0.05, 0.01, 0.02, 0.08, 0.09, Outcome.forgotten),  # above 0 for certain, and too little to matter
        (0.0, -0.12, -0.1, 0.1, 0.12, Outcome.undecided),  # touches the margin
        (0.0, -1.5, -1.2, 1.2, 1.5, Outcome.undecided),  # a wide interval shows nothing
        (0.11, 0.01, 0.02, 0.2, 0.21, Outcome.remains),
        (0.11, 0.0, 0.01, 0.21, 0.22, Outcome.undecided),  # the 95 % interval holds 0
        (0.09, 0.01, 0.02, 0.16, 0.17, Outcome.undecided),  # not 0, but perhaps too little to matter
        (-0.11, -0.21, -0.2, -0.02, -0.01, Outcome.over),
        (-1.59, -3.4, -3.1, -0.05, 0.24, Outcome.undecided),
    ],
)
def test_knowledge_left(value: float, low: float, low90: float, high90: float, high: float, outcome: Outcome) -> None:
    assert judge_knowledge_left(Bounds(value, low, high, low90, high90), MARGIN) is outcome


def test_attacks_and_utility_are_one_sided() -> None:
    assert judge_attacked(Bounds(-0.5, -0.8, -0.2, -0.75, -0.25), MARGIN) is Withstood.robust
    assert judge_attacked(Bounds(0.05, -0.01, 0.11, 0.0, 0.0999), MARGIN) is Withstood.robust
    assert judge_attacked(Bounds(0.05, -0.01, 0.11, 0.0, 0.1), MARGIN) is Withstood.undecided
    assert judge_attacked(Bounds(0.2, 0.01, 0.4, 0.05, 0.35), MARGIN) is Withstood.back
    assert judge_attacked(Bounds(0.2, -0.01, 0.4, 0.05, 0.35), MARGIN) is Withstood.undecided
    assert judge_utility(Bounds(0.95, 0.89, 1.0, 0.9, 0.99)) is Kept.kept
    assert judge_utility(Bounds(0.95, 0.88, 1.0, 0.89, 0.99)) is Kept.undecided
    assert judge_utility(Bounds(0.8, 0.7, 0.89, 0.72, 0.88)) is Kept.lost


def test_facts_that_decide() -> None:
    # Half a width of 0.2 must become 0.1: four times the facts. Beyond the margin: 0.3 must become 0.2.
    assert facts_that_decide(Bounds(0.0, -0.24, 0.24, -0.2, 0.2), MARGIN, 40) == 160
    assert facts_that_decide(Bounds(0.2, -0.1, 0.5, -0.05, 0.45), MARGIN, 40) == 90
    assert facts_that_decide(Bounds(0.099, -0.24, 0.24, -0.2, 0.2), MARGIN, 40) is None
    assert facts_that_decide(Bounds(0.0, -0.11, 0.11, -0.1, 0.1), MARGIN, 40) == 41  # one more at least


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("facts", [20, 40, 100, 200])
def test_error_rates(kind: str, facts: int) -> None:
    """The rates of the whole rule, measurability included; 200 simulated runs each, so one is 0.5 %."""
    words = {true: share_of_verdicts(kind, facts, true, runs=200) for true in (0.0, 0.1, 0.2, 0.5)}
    for true in (0.2, 0.5):
        assert words[true].get(Outcome.forgotten, 0.0) <= 0.05
    # At the margin itself the test's level is 5 %; 3 standard errors of 200 runs are 4.6 %.
    assert words[0.1].get(Outcome.forgotten, 0.0) <= 0.05 + 0.046
    # Nothing is left: neither of the two strong words more often than the 95 % interval errs on a side.
    wrong = words[0.0].get(Outcome.remains, 0.0) + words[0.0].get(Outcome.over, 0.0)
    assert wrong <= 0.05 + 0.046
    assert words[0.5].get(Outcome.over, 0.0) == 0


def test_the_test_has_power() -> None:
    """Where the target knows the facts well, 200 facts are enough to say both words."""
    assert share_of_verdicts("embedded", 200, 0.0, runs=200)[Outcome.forgotten] > 0.9
    assert share_of_verdicts("embedded", 200, 0.5, runs=200)[Outcome.remains] > 0.95
    # TOFU's gap of 0.4 nats a token: 40 facts decide nothing, and the rule says so.
    assert share_of_verdicts("tofu", 40, 0.5, runs=200).get(Outcome.forgotten, 0.0) == 0
    assert share_of_verdicts("tofu", 40, 0.0, runs=200).get(Outcome.forgotten, 0.0) < 0.1


def test_a_target_that_does_not_know_the_facts_is_not_measurable() -> None:
    assert share_of_verdicts("ignorant", 40, 0.0, runs=100) == pytest.approx({Outcome.unmeasurable: 1.0}, abs=0.05)
    assert share_of_verdicts("embedded", 9, 0.0, runs=20) == {Outcome.unmeasurable: 1.0}


def test_without_wrong_answers_the_reason_is_not_the_number_of_facts() -> None:
    rows = [RowScore("r", "forget", "forget", "f", "", {"probability": 0.5})]
    assert why_not_measurable(rows, rows).startswith("no scored forget row has wrong answers")
