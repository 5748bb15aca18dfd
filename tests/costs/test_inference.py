"""Bytes of a forward without gradient against tensors of real models."""

from __future__ import annotations

import pytest
import torch

from erulab.costs.inference import activation_bytes, cache_bytes, logits_bytes
from erulab.costs.shapes import ModelShape
from tests.costs.families import CONFIGS, model_of


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi", "gpt2", "mixtral"])
def test_cache_bytes_are_those_of_keys_and_values(family: str) -> None:
    model = model_of(CONFIGS[family], "eager").eval()
    with torch.no_grad():
        cache = model(input_ids=torch.tensor([[2, 3, 4, 5, 6]]), use_cache=True).past_key_values
    held = sum(
        tensor.numel() * tensor.element_size() for layer in cache.layers for tensor in (layer.keys, layer.values)
    )
    assert cache_bytes(ModelShape.from_config(model.config.to_dict()), 4) * 5 == held


def test_bytes_of_a_published_model_by_hand() -> None:
    """SmolLM2-135M in float32, and in bfloat16, where log-probabilities are float32 all the same."""
    sizes = {"num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536, "vocab_size": 49152}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
    shape = ModelShape.from_config({"model_type": "llama", **sizes, **heads})
    assert cache_bytes(shape, 4) == 30 * 2 * 3 * 64 * 4
    assert activation_bytes(shape, 4) == 4 * (2 * 576 + 3 * 1536)
    assert logits_bytes(shape, 4) == 49152 * 8
    assert logits_bytes(shape, 2) == 49152 * (2 + 4 + 4)
