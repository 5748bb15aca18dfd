"""The rank of the true value: by counting, and under guessing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from erulab.evaluation.figures.rank import rank_figures


def test_the_rank_counts_the_values_that_are_more_likely() -> None:
    assert rank_figures(1.0, [2.0, 3.0, 4.0]) == {"rank": 1.0, "rank_auc": 1.0}
    assert rank_figures(3.5, [2.0, 3.0, 4.0]) == {"rank": 3.0, "rank_auc": pytest.approx(1 / 3)}
    assert rank_figures(9.0, [2.0, 3.0, 4.0]) == {"rank": 4.0, "rank_auc": 0.0}
    assert rank_figures(2.0, [2.0, 3.0]) == {"rank": 1.5, "rank_auc": 0.75}  # a tie counts one half


def test_a_broken_model_has_no_rank() -> None:
    for right, wrong in ((math.nan, [2.0, 3.0]), (1.0, [2.0, math.nan])):
        assert all(map(math.isnan, rank_figures(right, wrong).values()))


def test_a_model_that_guesses_has_half_whatever_the_number_of_values() -> None:
    rng = np.random.default_rng(0)
    for wrong in (1, 3, 14):
        found = [rank_figures(float(nll[0]), nll[1:].tolist()) for nll in rng.uniform(size=(4000, wrong + 1))]
        assert np.mean([one["rank_auc"] for one in found]) == pytest.approx(0.5, abs=0.02)
        assert np.mean([one["rank"] for one in found]) == pytest.approx(1 + wrong / 2, rel=0.03)


def test_the_share_of_beaten_values_is_an_auc() -> None:
    """One true value against its wrong ones, by the AUC that membership inference uses."""
    from erulab.evaluation.membership import auc

    wrong = [0.5, 1.0, 2.0, 2.0, 7.0]
    for right in (0.1, 1.0, 2.0, 9.0):
        assert rank_figures(right, wrong)["rank_auc"] == pytest.approx(auc(np.array(wrong), np.array([right])))
