"""Membership inference: how unlike its training texts a text looks to a model, and how well that tells two sets apart.

Every score is higher for a text that looks less like a member.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from erulab.errors import NumericFault

Values = NDArray[np.floating]

# A position whose distribution is a single token has no deviation: open-unlearning's floor for the variance, 1e-6.
LEAST_DEVIATION = 1e-3


def loss_score(nll: Values) -> float:
    """Mean NLL.

    Args:
        nll: (tokens,) nats; at least one, here and below.
    """
    return float(np.mean(nll))


def zlib_score(nll: Values, text: str) -> float:
    """Mean NLL over the bytes that zlib makes of the text, nats a byte (Carlini 2021; as in MUSE and open-unlearning).

    Args:
        nll: (tokens,) nats.
    """
    return float(np.mean(nll)) / len(zlib.compress(text.encode()))


def min_k_score(nll: Values, share: float = 0.4) -> float:
    """Mean NLL of the least likely tokens (Shi 2023).

    Args:
        nll: (tokens,) nats.
        share: of the tokens, rounded down, one at least.
    """
    return float(np.mean(_largest(nll, share)))


def min_k_plus_plus_score(nll: Values, mean: Values, deviation: Values, share: float = 0.4) -> float:
    """Mean of the largest (NLL + mean) / deviation: how unlikely the token is among those the model expected there.

    Args:
        nll: (tokens,) nats.
        mean, deviation: (tokens,) of the log-probability of a token drawn from the model's own distribution there:
            sum p log p, and the root of sum p (log p)^2 - (sum p log p)^2.
        share: as for `min_k_score`.
    Source: Zhang 2024, mink-plus-plus/run.py, with the sign turned.
    """
    return float(np.mean(_largest((nll + mean) / np.maximum(deviation, LEAST_DEVIATION), share)))


def auc(forget: Values, holdout: Values) -> float:
    """P(a forget text looks less like a member than a holdout text), ties half: near 0 for a model that learned them.

    Args:
        forget, holdout: (texts,) scores of one kind.
    Raises:
        NumericFault: a score is not finite.
    """
    if not (np.isfinite(forget).all() and np.isfinite(holdout).all()):
        raise NumericFault("membership inference: not all scores are finite")
    difference = np.asarray(forget)[:, None] - np.asarray(holdout)[None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def priv_leak(model: float, retrained: float) -> float:
    """MUSE's PrivLeak, percent: 0 like the retrained model, near -100 like the target, above 0 over-forgotten.

    Args:
        model, retrained: `auc` of the model and of the retrained one, on the same texts.
    """
    return 100 * (model - retrained) / retrained


def _largest(values: Values, share: float) -> Values:
    return np.sort(values)[::-1][: max(1, int(len(values) * share))]
