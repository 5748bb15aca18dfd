"""Soft tokens: ids beyond the vocabulary whose embeddings are given vectors; all code that reads ids works on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel


def first_soft_id(model: PreTrainedModel) -> int:
    """Returns the first id beyond the model's vocabulary."""
    return len(_embedding_module(model).weight)


def embeddings(model: PreTrainedModel) -> torch.Tensor:
    """Returns the (vocabulary, width) embedding of each token, without gradient."""
    embedding = _embedding_module(model)
    with torch.no_grad():
        table: torch.Tensor = embedding(torch.arange(len(embedding.weight), device=embedding.weight.device))
    return table


@contextmanager
def soft_tokens(model: PreTrainedModel, vectors: torch.Tensor) -> Iterator[None]:
    """Opens a context in which the model embeds the id `first_soft_id + i` as vectors[i].

    Equal ids have equal embeddings, so packed rows share their openings, and generation continues after soft tokens.

    Args:
        vectors: (soft ids, width), on the model's device; may require a gradient.
    """
    embedding: nn.Module = _embedding_module(model)
    first = first_soft_id(model)
    own, before = embedding.forward, vars(embedding).get("forward")

    def forward(ids: torch.Tensor) -> torch.Tensor:
        soft = ids >= first
        states = own(ids.masked_fill(soft, 0))
        given = vectors.to(states.dtype)[(ids - first).clamp(min=0)]
        return torch.where(soft[..., None], given, states)

    embedding.forward = forward
    try:
        yield
    finally:
        del embedding.forward
        if before is not None:  # a compiled one
            embedding.forward = before


def _embedding_module(model: PreTrainedModel) -> nn.Embedding:
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return embedding
