"""Soft tokens with the embeddings of real tokens act as those tokens, in every layout."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from erulab import logprobs
from erulab.models import packing
from erulab.models.attention import PACKED
from erulab.models.policy import Policy
from erulab.models.soft_tokens import embeddings, first_soft_id, soft_tokens
from erulab.tokens.batch import Encoded, collate
from tests.samples.tiny import FORGET, KINDS, VOCABULARY, WIDTH, random_model

SOFT = (VOCABULARY, VOCABULARY + 1, VOCABULARY + 2)


def with_ids(ids: tuple[int, ...]) -> list[Encoded]:
    """Rows with three more ids before the response, and with a common opening that packed rows share."""
    opening = (0, 5, 7, 9, 4, 6, 8, 3)
    return [
        Encoded(row.row_id, (*opening, *ids, *row.ids[row.start :]), 11, 11 + row.end - row.start) for row in FORGET
    ]


def nll(model: PreTrainedModel, rows: list[Encoded], *, scoring: bool = False) -> torch.Tensor:
    policy, batch = Policy(model), collate(rows, 0)
    return logprobs.token_nll(policy.hidden(batch, scoring=scoring), policy.head, batch.input_ids[batch.supervised])


@pytest.mark.parametrize("kind", KINDS)
def test_soft_tokens_with_embeddings_of_tokens_act_as_those_tokens(kind: str) -> None:
    model = random_model(kind)
    assert first_soft_id(model) == VOCABULARY
    vectors = embeddings(model)[[11, 12, 13]]
    expected = nll(model, with_ids((11, 12, 13)))
    with soft_tokens(model, vectors):
        torch.testing.assert_close(nll(model, with_ids(SOFT)), expected, rtol=0, atol=0)
    assert not torch.equal(nll(model, with_ids((14, 12, 13))), expected)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_packed_and_padded_rows_give_the_same_values_and_gradients(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "CALL", 0)  # otherwise rows of so narrow a model are padded
    found, computed = [], []
    for implementation in ("sdpa", PACKED):
        model = random_model(kind)
        model.set_attn_implementation(implementation)
        vectors = torch.randn(3, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        vectors.requires_grad_()
        policy, batch = Policy(model), collate(with_ids(SOFT), 0)
        with soft_tokens(model, vectors):
            hidden = policy.hidden(batch)
            values = logprobs.token_nll(hidden, policy.head, batch.input_ids[batch.supervised])
            (gradient,) = torch.autograd.grad(values.sum(), vectors)
            torch.testing.assert_close(nll(model, with_ids(SOFT), scoring=True), values)
        found.append((values.detach(), gradient))
        computed.append(policy.ledger.spent.tokens)
    assert computed[1] < computed[0] and found[0][1].abs().max() > 1e-3
    # Norms and rotations compute in float32 whatever the model.
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_the_model_is_restored_after_an_exception_too() -> None:
    model = random_model()
    before = nll(model, FORGET)
    embedding = model.get_input_embeddings()
    with pytest.raises(RuntimeError, match="stop"), soft_tokens(model, torch.zeros(1, WIDTH)):
        raise RuntimeError("stop")
    assert "forward" not in vars(embedding)
    with pytest.raises(IndexError):  # ids beyond the vocabulary are errors again
        nll(model, with_ids(SOFT))
    assert torch.equal(nll(model, FORGET), before)
