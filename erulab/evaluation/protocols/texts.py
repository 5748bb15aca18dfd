"""Membership inference: how likely a model finds a whole text."""

from __future__ import annotations

import math

import numpy as np

from erulab.data.measures import Texts
from erulab.data.rows import Row
from erulab.evaluation import membership
from erulab.evaluation.protocols.base import Asking, Question, Replies


def texts(measure: Texts, row: Row, asking: Asking) -> Question:
    """Figures: nll (the loss score), zlib, min_k and min_k_plus_plus; higher: less like a member. probability."""
    request = asking.encode(row, row.response)

    def figures(replies: Replies) -> dict[str, float]:
        tokens = replies.of(request).tokens
        nll, mean, deviation = (
            np.array([getattr(token, name) for token in tokens]) for name in ("nll", "mean", "deviation")
        )
        return {
            "nll": membership.loss_score(nll),
            "zlib": membership.zlib_score(nll, row.response),
            "min_k": membership.min_k_score(nll),
            "min_k_plus_plus": membership.min_k_plus_plus_score(nll, mean, deviation),
            "probability": math.exp(-float(nll.mean())),
        }

    return Question((request,), None, figures, spread=True)
