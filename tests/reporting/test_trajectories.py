"""Knowledge left and utility along a run, compared with values computed by hand."""

from __future__ import annotations

import pytest

from erulab.reporting.trajectories import Point, least_knowledge_at, trajectory_points

TARGET = {
    "forget/log_odds": 4.0,
    "forget_heldout/log_odds": 2.0,
    "forget/n": 10,
    "forget_heldout/n": 30,
    "retain/choice": 1.0,
    "retain_unrehearsed/choice": 0.8,
}
ORACLE = {"forget/log_odds": -4.0, "forget_heldout/log_odds": -2.0, "forget/n": 10, "forget_heldout/n": 30}


def line(step: int, forget: float, heldout: float, retain: float, unrehearsed: float) -> dict[str, float]:
    return {
        "step": step,
        "eval/forget/log_odds": forget,
        "eval/forget_heldout/log_odds": heldout,
        "eval/forget/choice": 0.5,
        "eval/forget_heldout/choice": 0.5,
        "eval/retain/choice": retain,
        "eval/retain_unrehearsed/choice": unrehearsed,
    }


def test_knowledge_pools_rows_and_utility_is_read_from_unrehearsed_rows() -> None:
    lines = [line(0, 4.0, 2.0, 1.0, 0.8), {"step": 1, "loss": 2.0}, line(2, 0.0, 1.0, 1.0, 0.4)]
    # target (4*10 + 2*30)/40 = 2.5, oracle -2.5, model at step 2 (0*10 + 1*30)/40 = 0.75: K = 3.25/5
    assert trajectory_points(lines, TARGET, ORACLE) == (Point(0, 1.0, 1.0), Point(1, 1.0, 1.0), Point(3, 0.65, 0.5))


def test_without_unrehearsed_rows_utility_is_read_from_the_first_retain_suite() -> None:
    lines = [{k: v for k, v in line(0, 4.0, 2.0, 0.9, 0.8).items() if "unrehearsed" not in k}]
    assert trajectory_points(lines, TARGET, ORACLE) == (Point(0, 1.0, 1.0), Point(1, 1.0, 0.9))


@pytest.mark.parametrize(
    ("target", "oracle"),
    [({}, ORACLE), (TARGET, {}), (ORACLE, TARGET), ({**TARGET, "retain_unrehearsed/choice": 0.0}, ORACLE)],
)
def test_no_trajectory_without_a_gap_or_a_model(target: dict[str, float], oracle: dict[str, float]) -> None:
    assert trajectory_points([line(0, 4.0, 2.0, 1.0, 0.8)], target, oracle) == ()
    assert trajectory_points([{"step": 0, "loss": 1.0}], TARGET, ORACLE) == ()


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(step, knowledge, utility) for step, (knowledge, utility) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("pairs", "level", "expected"),
    [
        (((1.0, 1.0), (0.6, 0.98), (0.2, 0.94)), 0.97, 0.5),  # a quarter of the way from 0.6 to 0.2
        (((1.0, 1.0), (0.6, 0.98)), 0.97, 0.6),  # keeps more to its end
        (((1.0, 0.9), (0.5, 0.8)), 0.97, None),
        (((1.0, 1.0), (0.6, 0.97), (0.2, 0.94)), 0.97, 0.6),  # a measured step
        (((1.0, 1.0), (0.5, 0.9), (0.1, 1.0)), 0.95, 0.1),  # falls and recovers
        (((1.0, 0.97), (0.5, 0.97)), 0.97, 0.5),
        (((0.4, 0.97),), 0.97, 0.4),
        ((), 0.97, None),
    ],
)
def test_knowledge_at_a_utility(pairs: tuple[tuple[float, float], ...], level: float, expected: float | None) -> None:
    found = least_knowledge_at(points(*pairs), level)
    assert found == (None if expected is None else pytest.approx(expected))
