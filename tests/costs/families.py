"""Configs of narrow models of every family in erulab.costs, and models that transformers builds from them."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from erulab.models.attention import PACKED
from erulab.models.dropout import disable_dropout
from erulab.tokens.batch import Batch, Encoded, collate

WIDTH, VOCABULARY = 96, 211
SIZES: dict[str, Any] = {
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "hidden_size": WIDTH,
    "vocab_size": VOCABULARY,
    "intermediate_size": 200,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
GPT2: dict[str, Any] = {
    "n_layer": 3,
    "n_head": 6,
    "n_embd": WIDTH,
    "vocab_size": VOCABULARY,
    "n_inner": 200,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SIZES},
    "llama tied, biased": {
        "model_type": "llama",
        **SIZES,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "mistral": {"model_type": "mistral", **SIZES, "head_dim": 24},
    "qwen2": {"model_type": "qwen2", **SIZES, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **SIZES, "head_dim": 24},
    "gemma": {"model_type": "gemma", **SIZES, "head_dim": 24},
    "gemma2": {"model_type": "gemma2", **SIZES, "head_dim": 24, "query_pre_attn_scalar": 24, "sliding_window": 16},
    "gemma3": {"model_type": "gemma3_text", **SIZES, "head_dim": 24, "query_pre_attn_scalar": 24},
    "mixtral": {"model_type": "mixtral", **SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        **SIZES,
        "head_dim": 24,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 56,
        "mlp_only_layers": [1],
    },
    "olmoe": {"model_type": "olmoe", **SIZES, "num_experts": 4, "num_experts_per_tok": 2},
    "qwen3_5": {
        "model_type": "qwen3_5_text",
        **SIZES,
        "head_dim": 24,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    },
    "phi": {"model_type": "phi", **SIZES},
    "phi3": {"model_type": "phi3", **SIZES},
    "gpt2": {"model_type": "gpt2", **GPT2},
}


def model_of(config: dict[str, Any], attention: str = PACKED) -> PreTrainedModel:
    """Builds a model with random float32 weights, in training mode without dropout, as erulab trains."""
    made = transformers.AutoConfig.for_model(**config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(made, attn_implementation=attention)
    # torch's counter has no entry for the kernel that runs all experts in one call.
    model.set_experts_implementation("eager")
    disable_dropout(model)
    return model.train()


def batch_of(lengths: list[int], supervised: int) -> Batch:
    """TokenCounts of these lengths, padded to the longest, the last `supervised` tokens of each supervised."""
    rows = [
        Encoded(f"r{i}", tuple(2 + (7 * i + j) % (VOCABULARY - 2) for j in range(length)), length - supervised, length)
        for i, length in enumerate(lengths)
    ]
    return collate(rows, 0)
