"""Membership inference: how probable a whole text is under a model."""

from __future__ import annotations

import math

import numpy as np

from erulab.data.measures import Texts
from erulab.data.rows import Row
from erulab.evaluation import membership
from erulab.evaluation.measures import RequestBuilder, RowRequests, RowResults, measures


@measures.register(Texts)
def request_texts(measure: Texts, row: Row, builder: RequestBuilder) -> RowRequests:
    """Requests the whole text, or the response of a row with a prompt.

    Figures: nll (the loss score), zlib, min_k and min_k_plus_plus, all higher for a text that looks less like a member
    of the training set; and probability.

    For a row with a prompt, the response given that prompt is scored. As in open-unlearning's TOFU, the end-of-turn
    tokens count in the mean NLL, but not among the least likely tokens of min-k.
    """
    request = builder.encode(row, row.response)
    closing = 0 if row.plain else builder.chat.closing(request)

    def figures(results: RowResults) -> dict[str, float]:
        tokens = results.of(request).tokens
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

    return RowRequests((request,), None, figures, needs_moments=True)
