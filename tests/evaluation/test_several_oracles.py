"""Several oracles: the zero of knowledge left is their mean, and its interval covers how they differ."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t as student_t

from erulab.evaluation.knowledge import RatioEstimate, knowledge_left
from erulab.evaluation.oracle_spread import knowledge_left_of_oracles, oracle_spread

FACTS = 40
NAMES = [f"fact/{i}" for i in range(FACTS)]
TRUE_K, GAP = 0.2, 6.0  # GAP: nats between target and oracle


def bounds(figure: RatioEstimate) -> tuple[float, float, float, float]:
    found = (figure.low, figure.high, figure.low90, figure.high90)
    return tuple(0.0 if bound is None else bound for bound in found)  # type: ignore[return-value]


def test_one_oracle_gives_the_same_bits_alone_and_in_a_list() -> None:
    rng = np.random.default_rng(0)
    oracle = rng.normal(-3, 1, FACTS)
    target, model = oracle + rng.normal(6, 1, FACTS), oracle + rng.normal(1, 2, FACTS)
    assert knowledge_left(model, target, oracle[None], NAMES) == knowledge_left(model, target, oracle, NAMES)


def test_the_zero_is_the_mean_of_the_oracles() -> None:
    rng = np.random.default_rng(1)
    oracles = rng.normal(-3, 1, (3, FACTS))
    target, model = rng.normal(3, 1, FACTS), rng.normal(-1, 1, FACTS)
    zero = sum(row.mean() for row in oracles) / 3
    wanted = (model.mean() - zero) / (target.mean() - zero)
    assert knowledge_left(model, target, oracles, NAMES).value == pytest.approx(wanted)


@pytest.mark.parametrize(("oracles", "tolerance"), [(2, 0.15), (3, 0.1), (5, 0.04)])
def test_where_only_oracles_differ_the_interval_is_students(oracles: int, tolerance: float) -> None:
    """All facts alike: K is a monotonous function of the zero, whose interval is the textbook's for a mean."""
    levels = np.linspace(-0.06, 0.06, oracles)
    scores = np.full((oracles, FACTS), -3.0) + levels[:, None]
    target, model = np.full(FACTS, -3 + GAP), np.full(FACTS, -3 + TRUE_K * GAP)
    figure = knowledge_left(model, target, scores, NAMES)
    error = levels.std(ddof=1) / oracles**0.5

    def left(zero: float) -> float:
        return (TRUE_K * GAP - zero) / (GAP - zero)

    far, near = (student_t.ppf(level, oracles - 1) * error for level in (0.975, 0.95))
    wanted = (left(far), left(-far), left(near), left(-near))
    width = wanted[1] - wanted[0]
    # The heavier the tails, the worse 2000 resamples tell where they end.
    assert bounds(figure) == pytest.approx(wanted, abs=width * tolerance)


Model = NDArray[np.float64]


def draw_study(rng: np.random.Generator, oracles: int, spread: float) -> tuple[Model, Model, Model]:
    """Draws the scores of a model whose true knowledge left is TRUE_K, a target, and oracles around a true zero.

    Facts differ by 2 nats in what the model knows of them, which gives K a standard error of 0.05; the levels of
    oracles have a standard deviation of `spread` nats.
    """
    ease = rng.normal(-3, 1, FACTS)
    target = ease + GAP + rng.normal(0, 1, FACTS)
    model = ease + TRUE_K * GAP + rng.normal(0, 2, FACTS)
    levels = rng.normal(0, spread, (oracles, 1))
    return model, target, ease + levels + rng.normal(0, 0.3, (oracles, FACTS))


def coverage(oracles: int, spread: float, studies: int = 300) -> tuple[float, float]:
    """Returns the shares of studies whose 95 % and 90 % interval hold the true value."""
    rng = np.random.default_rng(7)
    held = []
    for _ in range(studies):
        figure = knowledge_left(*draw_study(rng, oracles, spread), NAMES)
        assert figure.value is not None
        low, high, low90, high90 = bounds(figure)
        held.append((low <= TRUE_K <= high, low90 <= TRUE_K <= high90))
    ninety_five, ninety = np.mean(held, axis=0)
    return float(ninety_five), float(ninety)


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_intervals_of_three_oracles_hold_the_true_value_as_often_as_they_say(spread: float) -> None:
    """0.5 nats between oracles move K about as much as the facts do; 0.1 nats hardly matter."""
    ninety_five, ninety = coverage(3, spread)
    assert 0.93 <= ninety_five <= 0.99 and 0.88 <= ninety <= 0.97


def test_the_interval_of_one_oracle_is_too_narrow_where_oracles_differ() -> None:
    """What several oracles are for: one oracle's interval knows the facts' part only."""
    assert coverage(1, 0.5)[0] < 0.85


def test_the_interval_grows_with_the_spread() -> None:
    widths = []
    for spread in (0.0, 0.2, 0.8):
        figure = knowledge_left(*draw_study(np.random.default_rng(5), 3, spread), NAMES)
        widths.append(bounds(figure)[1] - bounds(figure)[0])
    assert widths == sorted(widths) and widths[2] > 1.5 * widths[0]


def test_each_oracle_is_judged_against_the_others() -> None:
    oracles = np.array([[-3.0, -1.0], [-2.0, -2.0], [-4.0, -3.0]])
    target = np.array([4.0, 2.0])
    wanted = [(-2 + 2.75) / (3 + 2.75), (-2 + 2.75) / (3 + 2.75), (-3.5 + 2) / (3 + 2)]
    assert knowledge_left_of_oracles(target, oracles) == pytest.approx(wanted)


@pytest.mark.parametrize("oracles", [2, 3, 8])
def test_the_spread_is_that_of_a_fresh_model_without_bias(oracles: int) -> None:
    """A fresh model's distance from the mean of m - 1 others has the variance sd^2 m / (m - 1)."""
    rng = np.random.default_rng(2)
    target, sd = np.array([1000.0]), 1.0  # so far that the denominator does not vary
    drawn = [oracle_spread(knowledge_left_of_oracles(target, rng.normal(0, sd, (oracles, 1)))) for _ in range(4000)]
    assert np.mean(np.square(drawn)) * 1000**2 == pytest.approx(sd**2 * oracles / (oracles - 1), rel=0.08)
