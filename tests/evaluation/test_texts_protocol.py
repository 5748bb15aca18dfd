"""Membership figures of a row, from full logits of its text alone."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch

from erulab.data.measures import Texts
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.evaluation.evaluate import evaluate
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks


def figures(loaded: LoadedModel, ids: list[int], start: int, closing: int, text: str) -> dict[str, float]:
    with torch.no_grad():
        logp = loaded.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    own = np.array([-float(logp[i - 1, ids[i]]) for i in range(start, len(ids))])
    p = logp.exp()
    mean = (p * logp).sum(-1)
    deviation = ((p * logp**2).sum(-1) - mean**2).sqrt()
    normal = np.array(
        [(float(-logp[i - 1, ids[i]]) + float(mean[i - 1])) / float(deviation[i - 1]) for i in range(start, len(ids))]
    )
    kept = len(own) - closing
    share = max(1, int(0.4 * kept))
    return {
        "nll": own.mean(),
        "probability": np.exp(-own.mean()),
        "zlib": own.mean() / len(zlib.compress(text.encode())),
        "min_k": np.sort(own[:kept])[-share:].mean(),
        "min_k_plus_plus": np.sort(normal[:kept])[-share:].mean(),
    }


def test_a_row_with_a_prompt_is_scored_by_its_response_alone(world: Benchmark, loaded: LoadedModel) -> None:
    """As in open-unlearning's TOFU, the end of turn counts in the loss and is not one of min-k's tokens."""
    row = world.forget[0]
    text = Row("text", "", row.response, plain=True)
    suites = (Suite("members", Role.FORGET, (row, text), Texts()),)
    asked, running = evaluate(loaded, suites, EvaluationOptions(), Ranks())
    encoded = loaded.chat.encode(Row("", row.prompt, row.response))
    assert loaded.tokenizer.decode(encoded.ids[-1]) == "<eos>"
    wanted = figures(loaded, list(encoded.ids), encoded.start, 1, row.response)
    assert asked.figures == pytest.approx(wanted, abs=1e-4)
    whole = loaded.chat.encode(Row("", "", row.response, plain=True))
    wanted = figures(loaded, list(whole.ids), max(whole.start, 1), 0, row.response)
    assert running.figures == pytest.approx(wanted, abs=1e-4)
