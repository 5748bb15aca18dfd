"""The benchmarks' figures that are computed from NLLs: pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.special import expit
from scipy.stats import ks_2samp


def log_truth_ratio(right: float, wrong: Sequence[float]) -> float:
    """Returns log R of one row: R = P_wrong / P_right, where P_wrong is the geometric mean over wrong answers.

    Args:
        right: NLL per token of the right answer (TOFU: the paraphrase, or else the answer), nats.
        wrong: NLL per token of each wrong answer, nats.
    Source: TOFU section 2.2; a difference of NLLs in float64, so that no tiny probability is divided by.
    """
    return right - float(np.mean(np.asarray(wrong, dtype=np.float64)))


def log_truth_ratio_arithmetic(right: float, wrong: Sequence[float]) -> float:
    """Returns log R as `log_truth_ratio`, but with the arithmetic mean of the wrong probabilities (TOFU's utils.py)."""
    others = -np.asarray(wrong, dtype=np.float64)
    return right + float(np.logaddexp.reduce(others)) - math.log(len(others))


def truth_ratio_forget(log_ratios: Iterable[float]) -> float:
    """Returns the mean of min(R, 1/R), in (0, 1]: 1 if right and wrong answers are equally probable."""
    return exact_mean(math.exp(-abs(value)) for value in log_ratios)


def truth_ratio_retain(log_ratios: Iterable[float]) -> float:
    """Returns the mean of max(0, 1 - R), in [0, 1]: 1 if wrong answers are impossible."""
    return exact_mean(max(0.0, 1.0 - math.exp(min(value, 700.0))) for value in log_ratios)


def truth_ratio_share(log_ratios: Iterable[float]) -> float:
    """Returns the mean of P_right / (P_right + P_wrong) = 1 / (1 + R): open-unlearning's `prob_mean` on forget rows."""
    return exact_mean(float(expit(-value)) for value in log_ratios)


def forget_quality_p_value(log_ratios: Sequence[float], oracle: Sequence[float]) -> float:
    """Returns the p-value of the two-sample Kolmogorov-Smirnov test of R under the model and under the retrained model.

    The test depends on the order of values only, so log R gives the p-value of R.
    """
    return float(ks_2samp(log_ratios, oracle).pvalue)


def harmonic_mean(values: Sequence[float]) -> float:
    """Returns TOFU's Model Utility, the harmonic mean of its components; 0 if one of them is 0."""
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / value for value in values)


def log_odds(right: float, wrong: Sequence[float]) -> float:
    """Returns the log-odds of the right answer against the wrong ones: -NLL(right) - logsumexp(-NLL(wrong)), nats."""
    others = -np.asarray(wrong, dtype=np.float64)
    return float(-right - np.logaddexp.reduce(others))


def probability_among(right: float, wrong: Sequence[float]) -> float:
    """Returns p / (p + sum of wrong p) with p = exp(-NLL): TOFU's probability on multiple choice."""
    return float(expit(log_odds(right, wrong)))


def chooses_right(right: float, wrong: Sequence[float]) -> bool:
    """Returns whether the right option is more probable than every wrong one; a tie counts as wrong.

    Args:
        right, wrong: NLLs, nats: summed over the tokens of an answer, or of the next token for options A to D.
    """
    return right < min(wrong)


def exact_mean(values: Iterable[float]) -> float:
    """Returns the mean; the sum is rounded once, so it does not depend on the order of the values."""
    found = list(values)
    return math.fsum(found) / len(found)
