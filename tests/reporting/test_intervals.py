"""t-intervals, compared with scipy's and with a printed table."""

from __future__ import annotations

import pytest
from scipy import stats

from erulab.reporting.intervals import mean_paired_difference, mean_with_interval

VALUES = [0.31, 0.17, 0.27, 0.4, -0.1]


def test_the_interval_is_students_t() -> None:
    found = mean_with_interval(VALUES)
    assert found is not None and found.n == 5
    low, high = stats.t.interval(0.95, 4, loc=found.value, scale=stats.sem(VALUES))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    # Two values a, b: the half-width is t(0.975, 1) |a - b| / 2, and tables have t = 12.706.
    two = mean_with_interval([0.0, 0.2])
    assert two is not None and two.high == pytest.approx(0.1 + 12.706 * 0.1, abs=1e-4) and two.holds_zero


def test_one_value_has_no_interval() -> None:
    one = mean_with_interval([0.3])
    assert one is not None and (one.value, one.low, one.high, one.holds_zero) == (0.3, None, None, None)
    assert mean_with_interval([]) is None


def test_differences_are_paired() -> None:
    first = {"a": 0.1, "b": 0.5, "c": 0.9}
    other = {"a": 0.2, "b": 0.61, "d": 5.0}
    found, by_hand = (
        mean_paired_difference(other, first),
        stats.ttest_rel([0.2, 0.61], [0.1, 0.5]).confidence_interval(),
    )
    assert found is not None and found.n == 2 and found.value == pytest.approx(0.105)
    assert (found.low, found.high) == (pytest.approx(by_hand.low), pytest.approx(by_hand.high))
    assert found.holds_zero is False and mean_paired_difference({"x": 1.0}, first) is None
