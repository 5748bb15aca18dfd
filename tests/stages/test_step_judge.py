"""The judge of trainer.keep=best on scores made by hand, and the keys of runs that keep the last step."""

from __future__ import annotations

import math

import pytest

from erulab.data.measures import Answers
from erulab.data.rows import Role, Suite
from erulab.errors import DataError
from erulab.evaluation.row_score import RowScore
from erulab.stages.step_judge import StepJudge, StepScore

SUITES = [
    Suite("forget", Role.FORGET, (), Answers()),
    Suite("retain", Role.RETAIN, (), Answers()),
    Suite("retain_unrehearsed", Role.RETAIN, (), Answers()),
]
FACTS = ("a", "b", "c", "d", "e", "f")
CHOOSING = frozenset(FACTS[:3])


def scored(*log_odds: float, unrehearsed: float = 0.8, role: str = "forget") -> list[RowScore]:
    """Row scores of one model: the log-odds of the facts in order; choice on ten unrehearsed rows has this mean."""
    forget = [
        RowScore(f"row {fact}", "forget", role, fact, "", {"log_odds": value, "choice": 1.0})
        for fact, value in zip(FACTS, log_odds, strict=True)
    ]
    retain = [RowScore(f"r{i}", "retain", "retain", f"r{i}", "", {"choice": 1.0}) for i in range(3)]
    right = round(10 * unrehearsed)
    kept = [
        RowScore(f"u{i}", "retain_unrehearsed", "retain", f"u{i}", "", {"choice": float(i < right), "probability": 0.5})
        for i in range(10)
    ]
    return forget + retain + kept


TARGET = scored(4, 4, 4, 9, 9, 9)
ORACLE = scored(-4, -4, -4, -9, -9, -9)


def judge(least: float = 0.9) -> StepJudge:
    return StepJudge(TARGET, ORACLE, SUITES, CHOOSING, least)


def test_knowledge_left_is_of_the_facts_that_choose_and_utility_of_unrehearsed_rows() -> None:
    # (mean of 1, -1, 0 minus -4) / (4 minus -4) = 1/2; the other facts do not count
    assert judge().judge(7, scored(1, -1, 0, 9, -9, 9, unrehearsed=0.6)) == StepScore(7, 0.5, pytest.approx(0.75))
    assert judge().facts == 3
    assert judge().judge(1, TARGET).knowledge == 1 and judge().judge(1, ORACLE).knowledge == 0


def test_under_the_floor_the_distance_to_the_oracle_decides_and_below_it_utility() -> None:
    best, over, left, much, little, broken = (
        StepScore(1, -0.1, 0.9),
        StepScore(2, -0.3, 1.0),
        StepScore(3, 0.4, 0.95),
        StepScore(4, 0.0, 0.89),
        StepScore(5, 0.0, 0.2),
        StepScore(6, None, 1.0),
    )
    in_order = [best, over, left, broken, much, little]
    assert sorted([little, broken, much, left, over, best], key=lambda score: score.rank(0.9)) == in_order


def test_scores_that_are_not_finite_have_no_knowledge_left() -> None:
    assert judge().judge(1, scored(math.nan, 0, 0, 0, 0, 0)).knowledge is None
    assert judge().judge(1, scored(0, 0, 0, math.nan, 0, 0)).knowledge == 0.5


@pytest.mark.parametrize(
    ("target", "oracle", "said"),
    [
        (ORACLE, TARGET, "on 3 facts, where it is undefined: target and oracle differ by too little"),
        (scored(4, 4, 4, 9, 9, 9, unrehearsed=0.0), ORACLE, "its retain_unrehearsed/choice is 0"),
    ],
)
def test_what_cannot_be_judged_is_refused(target: list[RowScore], oracle: list[RowScore], said: str) -> None:
    with pytest.raises(DataError, match=said):
        StepJudge(target, oracle, SUITES, CHOOSING, 0.9)
