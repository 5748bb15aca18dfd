"""Tiny mixtures of experts of the families that erulab loads, each with its own layout of experts and router."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from tests.models.families import DEEPSEEK

WIDTH, EXPERTS = 32, 4
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 50,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "num_experts": EXPERTS,
    "num_local_experts": EXPERTS,
    "n_routed_experts": EXPERTS,
    "num_experts_per_tok": 2,
}
DENSE_FIRST = {"q_lora_rank": 8, "n_shared_experts": 1, "first_k_dense_replace": 1}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
# Model type -> what it needs beside the sizes.
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {},
    "qwen2_moe": {"shared_expert_intermediate_size": 16},
    "qwen3_moe": {},
    "olmoe": {},
    "deepseek_v2": {**DEEPSEEK, **DENSE_FIRST},
    "deepseek_v3": {**DEEPSEEK, **DENSE_FIRST},
    "gpt_oss": {},
    "granitemoe": {},
    "phimoe": {},
    "jetmoe": {"kv_channels": 8},
    "hunyuan_v1_moe": {"moe_topk": 2, "num_shared_expert": 1},
    "qwen3_next": {**LINEAR, "shared_expert_intermediate_size": 16},
    "ernie4_5_moe": {"moe_num_experts": EXPERTS, "moe_k": 2},
    "afmoe": {},
}


def mixture(kind: str) -> PreTrainedModel:
    """Builds a random model; no parameter of a block is zero, as some are at first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(kind, **{**SIZES, **MIXTURES[kind]})
        model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3)
    return model.eval()
