"""Metrics against closed forms, and against rows that open-unlearning published."""

from __future__ import annotations

import math

import pytest

from erulab.evaluation import metrics


def test_truth_ratio_is_a_quotient_of_geometric_means() -> None:
    right, wrong = 0.7, [1.1, 2.3, 0.4]
    quotient = math.prod(math.exp(-nll) for nll in wrong) ** (1 / 3) / math.exp(-right)
    assert math.exp(metrics.log_truth_ratio(right, wrong)) == pytest.approx(quotient, rel=1e-12)


def test_arithmetic_truth_ratio() -> None:
    right, wrong = 0.7, [1.1, 2.3, 0.4]
    quotient = sum(math.exp(-nll) for nll in wrong) / 3 / math.exp(-right)
    assert math.exp(metrics.log_truth_ratio_arithmetic(right, wrong)) == pytest.approx(quotient, rel=1e-12)
    # One wrong answer: both means are the same. Two that float64 cannot hold, one of them e^1000 times the other.
    assert metrics.log_truth_ratio_arithmetic(2.0, [3.5]) == metrics.log_truth_ratio(2.0, [3.5]) == -1.5
    assert metrics.log_truth_ratio_arithmetic(0.0, [3000.0, 4000.0]) == pytest.approx(-3000 - math.log(2))


def test_truth_ratios_as_open_unlearning_logged_them() -> None:
    """Rows 11 to 13 of forget_truth_ratio in the retain90 log of Llama-3.2-1B; it divides by p + 1e-10 in float32."""
    rows = (
        (
            2.6237101554870605,
            (3.168910503387451, 3.525394916534424, 3.1392979621887207, 2.871951103210449, 2.382277011871338),
            0.6744510721985364,
        ),
        (
            3.0010883808135986,
            (4.198599815368652, 3.9337916374206543, 4.331122875213623, 4.857011318206787, 3.484980821609497),
            0.3134821323096503,
        ),
        (
            4.162493705749512,
            (3.9873569011688232, 3.8377039432525635, 4.128216743469238, 4.04717493057251, 3.712610960006714),
            1.2459284608046384,
        ),
    )
    for right, wrong, ratio in rows:
        assert math.exp(metrics.log_truth_ratio(right, wrong)) == pytest.approx(ratio, rel=1e-6)


def test_share_of_the_right_answer() -> None:
    p, q = 0.3, 0.1
    assert metrics.truth_ratio_share([math.log(q / p)]) == pytest.approx(p / (p + q), rel=1e-12)
    assert metrics.truth_ratio_share([2000.0, -2000.0, 0.0]) == 0.5


def test_truth_ratio_limits() -> None:
    assert metrics.truth_ratio_forget([0.0, 0.0]) == 1.0 and metrics.truth_ratio_retain([0.0]) == 0.0
    assert metrics.truth_ratio_forget([math.log(2), -math.log(2)]) == pytest.approx(0.5)
    assert metrics.truth_ratio_retain([-math.log(4), math.log(4)]) == pytest.approx(0.375)  # mean of 3/4 and 0
    # Probabilities that float64 cannot hold: from differences of NLLs they never divide by zero.
    extreme = [metrics.log_truth_ratio(0.0, [3000.0]), metrics.log_truth_ratio(3000.0, [0.0])]
    assert metrics.truth_ratio_forget(extreme) == 0.0
    assert metrics.truth_ratio_retain(extreme) == 0.5


def test_log_odds_are_those_of_the_normalised_choice() -> None:
    nll = [1.3, 0.2, 4.0, 2.2]
    probabilities = [math.exp(-s) / sum(math.exp(-other) for other in nll) for s in nll]
    odds = math.log(probabilities[0] / (1 - probabilities[0]))
    assert metrics.log_odds(nll[0], nll[1:]) == pytest.approx(odds, rel=1e-12)
    assert metrics.probability_among(nll[0], nll[1:]) == pytest.approx(probabilities[0], rel=1e-12)
    assert metrics.log_odds(5.0, [5.0] * 14) == pytest.approx(-math.log(14))  # nothing known
    assert metrics.log_odds(3000.0, [0.0]) == -3000.0 and metrics.probability_among(3000.0, [0.0]) == 0.0


def test_harmonic_mean_is_zero_if_a_component_is() -> None:
    assert metrics.harmonic_mean([1.0, 0.5, 0.25]) == pytest.approx(3 / 7)
    assert metrics.harmonic_mean([1.0, 0.0]) == 0.0


@pytest.mark.parametrize(("n", "floor"), [(40, 1.9e-23), (200, 1.94e-119), (300, 1.5e-179), (400, 1.06e-239)])
def test_forget_quality_floor(n: int, floor: float) -> None:
    """The p-value of two samples that do not overlap at all."""
    low = [i / n for i in range(n)]
    assert metrics.forget_quality_p_value(low, [10 + value for value in low]) == pytest.approx(floor, rel=0.05)
    assert metrics.forget_quality_p_value(low, low) == 1.0


def test_a_choice_is_right_only_where_it_is_alone_on_top() -> None:
    assert metrics.chooses_right(1.0, [1.1, 7.0]) and not metrics.chooses_right(1.0, [7.0, 1.0])
