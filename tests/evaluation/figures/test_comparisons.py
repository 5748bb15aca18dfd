"""sMIA and open-unlearning's aggregates: limits and closed forms, for numbers and for resampled figures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from erulab.data.measures import Separation
from erulab.evaluation.figures.combining import combined_harmonic_mean
from erulab.evaluation.figures.comparisons import MEMORISATION, SCORES, aggregates, membership_comparisons
from erulab.evaluation.membership import smia
from erulab.evaluation.metrics import harmonic_mean

MIA = (Separation("mia", "forget", "holdout"),)


def test_smia_is_one_at_the_oracle_and_zero_at_the_target_and_beyond() -> None:
    assert smia(0.5, 0.02, 0.5) == 1.0
    assert smia(0.02, 0.02, 0.5) == 0.0
    assert smia(0.0, 0.02, 0.5) == 0.0  # clipped
    assert smia(0.98, 0.02, 0.5) == 0.0  # as far on the other side: over-forgotten
    assert smia(0.26, 0.02, 0.5) == pytest.approx(0.5)
    assert math.isnan(smia(0.5, 0.46, 0.5)) and not math.isnan(smia(0.5, 0.44, 0.5))
    found = smia(np.array([0.5, 0.26]), np.array([0.02, 0.02]), np.array([0.5, 0.5]))
    assert found == pytest.approx([1.0, 0.5])


def test_the_harmonic_mean_of_resampled_figures_is_that_of_each_resample() -> None:
    draws = np.random.default_rng(0).uniform(size=(4, 50))
    draws[1, 7] = 0.0
    found = combined_harmonic_mean(list(draws))
    assert found == pytest.approx([harmonic_mean(column) for column in draws.T.tolist()])
    assert combined_harmonic_mean([0.2, 0.6]) == pytest.approx(0.3)
    assert math.isnan(combined_harmonic_mean([0.2, math.nan]))


def aucs(value: float) -> dict[str, float]:
    return {f"mia/auc_{auc}": value for auc in SCORES.values()}


def test_membership_comparisons_need_target_and_oracle_with_a_gap() -> None:
    found = membership_comparisons(aucs(0.3), aucs(0.1), aucs(0.5), MIA)
    assert found == {"mia/privleak": pytest.approx(-40.0)} | {f"mia/smia_{s}": pytest.approx(0.5) for s in SCORES}
    assert set(membership_comparisons(aucs(0.3), None, aucs(0.5), MIA)) == {"mia/privleak"}
    assert set(membership_comparisons(aucs(0.3), aucs(0.47), aucs(0.5), MIA)) == {"mia/privleak"}
    assert membership_comparisons(aucs(0.3), aucs(0.1), None, MIA) == {}
    assert membership_comparisons(aucs(0.3), aucs(0.1), aucs(0.0), MIA).keys() == {f"mia/smia_{s}" for s in SCORES}


def test_aggregates_in_closed_form() -> None:
    components = dict(zip(MEMORISATION, (0.5, 0.5, 0.5, 0.75), strict=True)) | {"distinct_ngrams": 0.9}
    figures = {f"mia/smia_{s}": 0.8 for s in SCORES} | {"model_utility": 0.6}
    memorisation, utility = 4 / (3 / 0.5 + 1 / 0.25), 2 / (1 / 0.6 + 1 / 0.9)
    assert aggregates(components, figures, MIA) == {
        "aggregate/memorisation": pytest.approx(memorisation),
        "aggregate/privacy": pytest.approx(0.8),
        "aggregate/utility": pytest.approx(utility),
        "aggregate/all": pytest.approx(3 / (1 / memorisation + 1 / 0.8 + 1 / utility)),
    }
    # A model that repeats its training text has a memorisation score of 0, and then all is 0.
    learned = aggregates(components | {"extraction_strength": 1.0}, figures, MIA)
    assert learned["aggregate/memorisation"] == learned["aggregate/all"] == 0.0
    # Without membership inference there is no privacy, and no aggregate of all.
    assert aggregates(components, figures, ()).keys() == {"aggregate/memorisation", "aggregate/utility"}
    assert aggregates({}, {}, ()) == {}


def test_aggregates_of_open_unlearning_s_own_components_stand_beside_them() -> None:
    own = dict(zip(MEMORISATION, (0.5, 0.5, 0.5, 0.75), strict=True)) | {"distinct_ngrams": 0.9}
    theirs = {f"open_unlearning/{name}": 0.2 for name in MEMORISATION}
    figures = {"model_utility": 0.6, "open_unlearning/model_utility": 0.3}
    found = aggregates(own | theirs, figures, ())
    assert found["open_unlearning/aggregate/memorisation"] == pytest.approx(0.8)
    assert found["open_unlearning/aggregate/utility"] == pytest.approx(2 / (1 / 0.3 + 1 / 0.9))
    assert "open_unlearning/aggregate/utility" not in aggregates(own, figures, ())
