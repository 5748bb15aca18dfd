"""Membership inference: scores of how unlike training text a text looks, and how well they separate two sets.

Every score is higher for a text that looks less like a member of the training set.
"""

from __future__ import annotations

import zlib
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from erulab.errors import NumericFault

Values = NDArray[np.floating]
Auc = TypeVar("Auc", float, NDArray[np.float64])

# Floor for a deviation, which is 0 where one token has all the probability: open-unlearning's 1e-6 for the variance.
LEAST_DEVIATION = 1e-3
LEAST_AUC_GAP = 0.05  # sMIA is undefined if the AUCs of target and oracle differ by less


def loss_score(nll: Values) -> float:
    """Returns the mean NLL per token, nats.

    Args:
        nll: (tokens,) nats; here and below at least one token.
    """
    return float(np.mean(nll))


def zlib_score(nll: Values, text: str) -> float:
    """Returns the mean NLL divided by the bytes of the zlib-compressed text (Carlini 2021; MUSE, open-unlearning).

    Args:
        nll: (tokens,) nats.
    """
    return float(np.mean(nll)) / len(zlib.compress(text.encode()))


def min_k_score(nll: Values, share: float = 0.4) -> float:
    """Returns the mean NLL of the least probable tokens, nats (Shi 2023).

    Args:
        nll: (tokens,) nats.
        share: share of the tokens that counts, rounded down to at least one token.
    """
    return float(np.mean(_largest(nll, share)))


def min_k_plus_plus_score(nll: Values, mean: Values, deviation: Values, share: float = 0.4) -> float:
    """Returns the mean of the largest (NLL + mean) / deviation: how improbable a token is among those expected there.

    Args:
        nll: (tokens,) nats.
        mean, deviation: (tokens,) of the log-probability of a token drawn from the model's own distribution there:
            sum p log p, and the root of sum p (log p)^2 - (sum p log p)^2.
        share: as in `min_k_score`.
    Source: Zhang 2024, mink-plus-plus/run.py, with the opposite sign.
    """
    return float(np.mean(_largest((nll + mean) / np.maximum(deviation, LEAST_DEVIATION), share)))


def auc(forget: Values, holdout: Values) -> float:
    """Returns P(a forget text looks less like a member than a holdout text); ties count one half.

    It is near 0 for a model that learned the forget texts, and 0.5 for one that cannot tell the two sets apart.

    Args:
        forget, holdout: (texts,) scores of one kind.
    Raises:
        NumericFault: a score is not finite.
    """
    if not (np.isfinite(forget).all() and np.isfinite(holdout).all()):
        raise NumericFault("membership inference: not all scores are finite")
    return float(np.mean(pairwise_wins(forget, holdout)))


def priv_leak(model: Auc, retrained: Auc | float) -> Auc:
    """Returns MUSE's PrivLeak in percent: 0 as the retrained model, near -100 as the target, above 0 over-forgotten.

    Args:
        model, retrained: `auc` of the model and of the retrained model, on the same texts; numbers or resampled ones.
    """
    return 100 * (model - retrained) / retrained


def smia(model: Auc, target: Auc, oracle: Auc) -> Auc:
    """Returns open-unlearning's sMIA: 1 if the AUC is the oracle's, 0 if it is at least as far from it as the target's.

    It is `1 - |AUC - AUC of the oracle| / |AUC of the target - AUC of the oracle|`, clipped to [0, 1].

    Args:
        model, target, oracle: AUCs on the same texts; numbers or resampled ones.
    Returns:
        NaN where target and oracle differ by less than LEAST_AUC_GAP.
    """
    gap = np.abs(np.subtract(target, oracle))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.clip(1 - np.abs(np.subtract(model, oracle)) / gap, 0.0, 1.0)
    result = np.where(gap >= LEAST_AUC_GAP, share, np.nan)
    return result if result.ndim else float(result)  # type: ignore[return-value]


def pairwise_wins(forget: Values, holdout: Values) -> NDArray[np.float64]:
    """Returns 1 where a forget text has the larger score, 0.5 where both are equal: (forget, holdout), in [0, 1]."""
    difference = np.asarray(forget)[:, None] - np.asarray(holdout)[None, :]
    return (difference > 0) + 0.5 * (difference == 0)


def _largest(values: Values, share: float) -> Values:
    return np.sort(values)[::-1][: max(1, int(len(values) * share))]
