"""Membership scores against their definitions over whole distributions, AUC against the U statistic."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from erulab.data.muse import PUBLISHED_AUC
from erulab.errors import NumericFault
from erulab.evaluation.membership import auc, loss_score, min_k_plus_plus_score, min_k_score, priv_leak, zlib_score


def test_loss_and_zlib() -> None:
    text, nll = "to be or not to be, " * 9, np.array([1.0, 2.0, 6.0])
    assert loss_score(nll) == 3.0
    assert zlib_score(nll, text) == pytest.approx(3.0 / len(zlib.compress(text.encode("utf-8"))))
    assert zlib_score(nll, text) > zlib_score(nll, text + "whose question?")


def test_min_k_takes_the_least_likely_tokens() -> None:
    nll = np.array([3.0, 0.5, 9.0, 1.0, 2.0, 0.1, 4.0])
    assert min_k_score(nll) == pytest.approx((9 + 4) / 2)  # int(7 * .4) = 2
    assert min_k_score(nll, share=1.0) == pytest.approx(loss_score(nll))
    assert min_k_score(np.array([3.0, 1.0])) == 3.0  # one at least


def test_min_k_plus_plus_against_whole_distributions() -> None:
    """z of each token by loops over the vocabulary, as mink-plus-plus/run.py defines it."""
    rng = np.random.default_rng(5)
    logits, tokens = rng.normal(size=(10, 30)) * 2, rng.integers(30, size=10)
    scores, nll, means, deviations = [], [], [], []
    for row, token in zip(logits, tokens, strict=True):
        p = [math.exp(value) / sum(math.exp(other) for other in row) for value in row]
        mean = sum(q * math.log(q) for q in p)
        deviation = math.sqrt(sum(q * (math.log(q) - mean) ** 2 for q in p))
        scores.append((math.log(p[token]) - mean) / deviation)
        nll.append(-math.log(p[token]))
        means.append(mean)
        deviations.append(deviation)
    lowest = sorted(scores)[:4]
    arrays = np.array(nll), np.array(means), np.array(deviations)
    assert min_k_plus_plus_score(*arrays) == pytest.approx(-sum(lowest) / 4, rel=1e-9)
    # A certain position: finite.
    certain = np.array([1.0]), np.array([0.0]), np.array([0.0])
    assert math.isfinite(min_k_plus_plus_score(*certain))


def test_auc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(1)
    forget, holdout = rng.integers(6, size=23).astype(float), rng.integers(7, size=31).astype(float)  # many ties
    statistic = mannwhitneyu(forget, holdout).statistic
    assert auc(forget, holdout) == pytest.approx(statistic / (23 * 31), rel=1e-12)
    assert auc(holdout, forget) == pytest.approx(1 - auc(forget, holdout))
    assert auc(forget, forget) == 0.5
    with pytest.raises(NumericFault, match="not all scores are finite"):
        auc(np.array([1.0, np.nan]), holdout)


def test_direction_of_priv_leak() -> None:
    """Learned texts have low NLLs: near -100. Texts pushed above any holdout text: over-forgotten, above 0."""
    holdout = np.linspace(2.0, 3.0, 50)
    for retrained in PUBLISHED_AUC.values():
        assert priv_leak(auc(holdout - 2, holdout), retrained) == -100.0
        assert priv_leak(retrained, retrained) == 0.0
        assert priv_leak(auc(holdout + 2, holdout), retrained) > 80
    # open-unlearning's retain90 log of Llama-3.2-1B: its AUC is of forget texts looking MORE like members.
    assert priv_leak(1 - 0.37574375, 0.5) == pytest.approx(24.851249995, abs=1e-5)
