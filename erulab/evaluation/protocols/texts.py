"""Membership inference: how likely a model finds a whole text."""

from __future__ import annotations

import math

import numpy as np

from erulab.data.measures import Texts
from erulab.data.rows import Row
from erulab.evaluation import membership
from erulab.evaluation.protocols.base import Asking, Question, Replies


def texts(measure: Texts, row: Row, asking: Asking) -> Question:
    """Figures: nll (the loss score), zlib, min_k and min_k_plus_plus; higher: less like a member. probability.

    A row with a prompt is scored by its response given that prompt. As in open-unlearning's TOFU, the end of a turn is
    a token of the mean NLL, and not among the least likely tokens of min-k.
    """
    request = asking.encode(row, row.response)
    closing = 0 if row.plain else asking.chat.closing(request)

    def figures(replies: Replies) -> dict[str, float]:
        tokens = replies.of(request).tokens
        nll, mean, deviation = (
            np.array([getattr(token, name) for token in tokens]) for name in ("nll", "mean", "deviation")
        )
        own = slice(len(nll) - closing)
        return {
            "nll": membership.loss_score(nll),
            "zlib": membership.zlib_score(nll, row.response),
            "min_k": membership.min_k_score(nll[own]),
            "min_k_plus_plus": membership.min_k_plus_plus_score(nll[own], mean[own], deviation[own]),
            "probability": math.exp(-float(nll.mean())),
        }

    return Question((request,), None, figures, spread=True)
