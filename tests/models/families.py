"""Sizes of tiny models of every type whose padded batches are compared, and of some that answer one prompt at a time.

Windows hold a common opening (32 tokens) and not what follows it, so that places in the cache and positions differ.
"""

from __future__ import annotations

import torch
import transformers
from transformers import PreTrainedModel

from erulab.models.attention import implementation
from erulab.models.options import Attention

WINDOWS: dict[str, object] = {"sliding_window": 40, "layer_types": ["sliding_attention", "full_attention"]}
DEEPSEEK: dict[str, object] = {
    "n_routed_experts": 4,
    "moe_intermediate_size": 8,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
    "num_key_value_heads": 2,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
}
HYBRID: dict[str, object] = {
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "layer_types": ["linear_attention", "full_attention"],
}
EXPERTS: dict[str, object] = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
# Types in PADDED.
TOGETHER: dict[str, dict[str, object]] = {
    "apertus": {},
    "arcee": {},
    "bamba": {
        "attn_layer_indices": [1],
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
    },
    "biogpt": {},
    "bitnet": {},
    "cohere": {},
    "cohere2": {**WINDOWS},
    "deepseek_v2": {**DEEPSEEK},
    "deepseek_v3": {**DEEPSEEK},
    "ernie4_5": {},
    "exaone4": {**WINDOWS},
    "falcon": {},
    "falcon_h1": {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_d_ssm": 32},
    "flex_olmo": {"num_experts": 4, "num_experts_per_tok": 2},
    "gemma": {},
    "gemma2": {"sliding_window": 40},
    "gemma3_text": {**WINDOWS},
    "gemma4_text": {"vocab_size_per_layer_input": 100, **WINDOWS},
    "glm": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neox": {},
    "gpt_oss": {**WINDOWS, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granite": {},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 16,
        "mamba_n_groups": 1,
    },
    "granitemoeshared": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "helium": {},
    "hunyuan_v1_dense": {},
    "internlm3": {},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "use_mamba_kernels": False,
        "mamba_d_state": 8,
    },
    "jetmoe": {},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 32},
    "lfm2_moe": {**EXPERTS, "layer_types": ["conv", "full_attention"], "num_experts": 4, "num_dense_layers": 1},
    "llama": {},
    "ministral": {**WINDOWS},
    "ministral3": {},
    "mistral": {"sliding_window": 40},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {**WINDOWS},
    "olmo_hybrid": {**HYBRID},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16},
    "persimmon": {},
    "phi": {},
    "phi3": {"sliding_window": 40},
    "phimoe": {"sliding_window": 40},
    "qwen2": {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1},
    "qwen2_moe": {**EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 16},
    "qwen3": {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1},
    "qwen3_5_moe_text": {**HYBRID, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 16},
    "qwen3_5_text": {**HYBRID},
    "qwen3_moe": {**EXPERTS, "num_experts": 4},
    "qwen3_next": {**HYBRID, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 16},
    "seed_oss": {},
    "smollm3": {**WINDOWS, "use_sliding_window": True, "no_rope_layers": [1, 0]},
    "stablelm": {},
    "starcoder2": {"sliding_window": 40},
    "vaultgemma": {**WINDOWS},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "n_mamba_heads": 2,
        "mamba_d_state": 8,
        "use_mamba_kernels": False,
        "attention_hidden_size": 32,
        "attention_head_dim": 16,
    },
}
# Types whose prompts are answered one at a time.
ALONE: dict[str, dict[str, object]] = {
    "nemotron_h": {
        "layers_block_type": ["mamba", "attention"],
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
    },
    "minimax": {"layer_types": ["linear_attention", "full_attention"], "num_local_experts": 2, "block_size": 16},
    "bloom": {},
    "mpt": {},
    "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 40, "num_layers": 2, "num_heads": 2},
    "xglm": {"ffn_dim": 32, "d_model": 16, "attention_heads": 2, "num_layers": 2},
}
# Types that are refused when the model is read.
REFUSED: dict[str, dict[str, object]] = {
    "nanochat": {},  # its norm also runs before the first block
    "llama4_text": {"num_local_experts": 2, "intermediate_size_mlp": 32, "attention_chunk_size": 40, "moe_layers": [1]},
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 4, "head_dim": 8, "n_groups": 1, "expand": 2},
    "falcon_mamba": {"state_size": 8},
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "n_mamba_heads": 4,
        "mamba_headdim": 8,
        "mamba_d_state": 8,
        "mamba_ngroups": 1,
        "attention_hidden_size": 32,
        "attention_head_dim": 16,
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "attention_window_size": 40, "lru_width": 16},
    "modernbert-decoder": {"local_attention": 40, "global_attn_every_n_layers": 2},
}
# Types whose config has other names for the common sizes.
OWN_NAMES = ("gpt2", "gpt_bigcode", "bloom", "mpt", "gptj", "falcon", "xglm", "opt", "gpt_neo", "biogpt")


def made(kind: str, sizes: dict[str, object]) -> PreTrainedModel:
    """Returns a random model of two narrow layers, with matrices large enough that logits differ."""
    common: dict[str, object] = {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_size": 16,
        "vocab_size": 100,
        "initializer_range": 0.5,
        "intermediate_size": 32,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if kind not in OWN_NAMES:
        common |= {"num_key_value_heads": 1, "head_dim": 8}
    if kind == "mpt":
        common |= {"n_heads": 2, "d_model": 16, "n_layers": 2, "max_seq_len": 256}
    if kind == "gpt_neo":
        common = {key: value for key, value in common.items() if not key.startswith("num_")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(kind, **(common | sizes))
        try:
            model = transformers.AutoModelForCausalLM.from_config(
                config, attn_implementation=implementation(Attention.sdpa, kind)
            )
        except ValueError:  # of types without SDPA
            model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1 and weight.std() < 0.1:
                    weight.normal_(0, 0.4)
    found: PreTrainedModel = model.eval()
    return found
