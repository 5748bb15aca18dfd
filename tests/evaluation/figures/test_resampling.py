"""Resamples of facts: against Wilson's closed form, a plain bootstrap and limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from erulab.evaluation.figures.resampling import (
    RESAMPLES,
    FactResamples,
    Samples,
    range_end,
    resampled_mean,
    samples_at_end,
    wilson_margin,
)


def row_weights(resamples: FactResamples, rows: int) -> np.ndarray:
    """How often each row is drawn, (resamples, rows): the resampled sums of one row alone."""
    return resamples.resampled_sums(np.eye(rows))[0]


def test_every_resample_draws_as_many_facts_as_there_are_and_rows_of_a_fact_together() -> None:
    weights = row_weights(FactResamples(["b", "a", "b", "c", "a", "b"]), 6)
    assert weights.shape == (RESAMPLES, 6)
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, 0] + weights[:, 1] + weights[:, 3] == 3).all()
    # A fact is left out of a resample with probability (2/3)^3, and the draws depend on the facts alone.
    assert (weights[:, 3] == 0).mean() == pytest.approx((2 / 3) ** 3, abs=0.05)
    assert (row_weights(FactResamples(["c", "b", "a"]), 3)[:, 0] == weights[:, 3]).all()


def test_sums_are_those_of_the_drawn_rows_that_have_the_figure() -> None:
    facts = ["a", "a", "b", "c"]
    values = np.array([[1.0, 5.0], [2.0, np.nan], [4.0, 7.0], [8.0, np.nan]])
    resamples = FactResamples(facts)
    sums, counts = resamples.resampled_sums(values)
    weights = row_weights(resamples, 4)
    np.testing.assert_allclose(sums[:, 0], weights @ values[:, 0])
    np.testing.assert_allclose(sums[:, 1], weights[:, 0] * 5 + weights[:, 2] * 7)
    np.testing.assert_allclose(counts[:, 1], weights[:, 0] + weights[:, 2])
    # Where only fact c is drawn, no row has the second figure.
    assert np.isnan(resampled_mean(sums[:, 1], counts[:, 1])[weights[:, 3] == 3]).all()


def test_the_mean_over_pairs_of_two_suites_weighs_both_rows_of_a_pair() -> None:
    one, other = FactResamples(["a", "b", "a"]), FactResamples(["x", "y"])
    values = np.arange(6.0).reshape(3, 2)
    weights = row_weights(one, 3)[:, :, None] * row_weights(other, 2)[:, None, :]
    expected = (weights * values).sum((1, 2)) / weights.sum((1, 2))
    np.testing.assert_allclose(one.resampled_pair_mean(values, other), expected)


def test_an_interval_of_a_mean_is_that_of_a_plain_bootstrap_and_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(2.0, 1.5, 150)
    sums, counts = FactResamples([f"f{i}" for i in range(150)]).resampled_sums(values[:, None])
    low, high = Samples(resampled_mean(sums[:, 0], counts[:, 0]), 150).interval(float(values.mean()))  # type: ignore[misc]
    plain = np.quantile([rng.choice(values, 150).mean() for _ in range(4000)], [0.025, 0.975])
    assert [low, high] == pytest.approx(plain, abs=0.05)
    half = 1.96 * values.std() / np.sqrt(150)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


@pytest.mark.parametrize("right", [0, 40])
@pytest.mark.parametrize("level", ["95", "90"])
def test_a_share_on_which_all_facts_agree_has_wilson_s_interval(right: int, level: str) -> None:
    found = binomtest(right, 40).proportion_ci(int(level) / 100, method="wilson")
    sample = samples_at_end(right / 40, 40, "model", "choice")
    assert sample.interval(right / 40, level) == pytest.approx((found.low, found.high), abs=1e-6)
    # Figures that are made of it vary as far: the quantiles of its values are the same bounds.
    distance = np.abs(sample.values - right / 40)
    assert np.quantile(distance, int(level) / 100) == pytest.approx(wilson_margin(40, level), rel=0.15)
    assert (sample.values >= 0).all() and (sample.values <= 1).all()


def test_what_has_no_interval() -> None:
    varied = np.linspace(0, 1, RESAMPLES)
    assert Samples(varied, 2).interval(0.5) is not None
    assert Samples(varied, 1).interval(0.5) is None  # one fact
    assert samples_at_end(1.0, 1).interval(1.0) is None
    assert Samples(varied, 9).interval(float("nan")) is None
    assert Samples(np.full(RESAMPLES, 0.3), 9).interval(0.3) is None  # rows that do not differ
    undefined = np.where(np.arange(RESAMPLES) < 0.06 * RESAMPLES, np.nan, varied)
    assert Samples(undefined, 9).interval(0.5) is None
    undefined[:10] = 0.5
    assert Samples(undefined, 9).interval(0.5) is not None
    # An interval contains its estimate.
    assert Samples(varied, 9).interval(2.0) == pytest.approx((0.025, 2.0))


def test_the_ends_of_a_range() -> None:
    assert [range_end(v) for v in ([0.0, 0.0], [1.0], [0.0, 1.0], [0.5])] == [0.0, 1.0, None, None]
