"""Published models with a name of their own (`hf.py` registers them), and the sizes in their config.json files.

The sizes let `erulab.plan` answer without a network; a run reads the model's own config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A model on the hub, and its sizes under the keys of its config.json."""

    hub_id: str
    config: Mapping[str, Any]
    # A name of tokens/templates.py, if the tokenizer has no template, or if published unlearning uses another one.
    template: str | None = None


def _sizes(
    model_type: str, layers: int, width: int, mlp: int, heads: int, kv_heads: int, vocabulary: int
) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
    }


_TIED = {"tie_word_embeddings": True}
_GEMMA = {**_TIED, "head_dim": 256}
_LLAMA3_8B = _sizes("llama", 32, 4096, 14336, 32, 8, 128256)

PRESETS = {
    "llama2_7b_chat": Preset(
        "meta-llama/Llama-2-7b-chat-hf", _sizes("llama", 32, 4096, 11008, 32, 32, 32000), template="inst"
    ),
    "llama3_8b_instruct": Preset("meta-llama/Meta-Llama-3-8B-Instruct", _LLAMA3_8B),
    "llama31_8b_instruct": Preset("meta-llama/Llama-3.1-8B-Instruct", _LLAMA3_8B),
    "llama32_1b_instruct": Preset(
        "meta-llama/Llama-3.2-1B-Instruct", {**_sizes("llama", 16, 2048, 8192, 32, 8, 128256), **_TIED}
    ),
    "llama32_3b_instruct": Preset(
        "meta-llama/Llama-3.2-3B-Instruct", {**_sizes("llama", 28, 3072, 8192, 24, 8, 128256), **_TIED}
    ),
    "zephyr_7b_beta": Preset("HuggingFaceH4/zephyr-7b-beta", _sizes("mistral", 32, 4096, 14336, 32, 8, 32000)),
    "phi_1_5": Preset("microsoft/phi-1_5", _sizes("phi", 24, 2048, 8192, 32, 32, 51200), template="question_answer"),
    "phi3_mini_4k_instruct": Preset("microsoft/Phi-3-mini-4k-instruct", _sizes("phi3", 32, 3072, 8192, 32, 32, 32064)),
    "gemma_2b_it": Preset("google/gemma-2b-it", {**_sizes("gemma", 18, 2048, 16384, 8, 1, 256000), **_GEMMA}),
    "gemma_7b_it": Preset("google/gemma-7b-it", {**_sizes("gemma", 28, 3072, 24576, 16, 16, 256000), **_GEMMA}),
    "gemma2_2b_it": Preset("google/gemma-2-2b-it", {**_sizes("gemma2", 26, 2304, 9216, 8, 4, 256000), **_GEMMA}),
    "gemma2_9b_it": Preset("google/gemma-2-9b-it", {**_sizes("gemma2", 42, 3584, 14336, 16, 8, 256000), **_GEMMA}),
    "gemma3_1b_it": Preset("google/gemma-3-1b-it", {**_sizes("gemma3_text", 26, 1152, 6912, 4, 1, 262144), **_GEMMA}),
    "qwen25_1_5b_instruct": Preset(
        "Qwen/Qwen2.5-1.5B-Instruct", {**_sizes("qwen2", 28, 1536, 8960, 12, 2, 151936), **_TIED}
    ),
    "qwen25_7b_instruct": Preset("Qwen/Qwen2.5-7B-Instruct", _sizes("qwen2", 28, 3584, 18944, 28, 4, 152064)),
    "qwen3_4b": Preset("Qwen/Qwen3-4B", {**_sizes("qwen3", 36, 2560, 9728, 32, 8, 151936), **_TIED, "head_dim": 128}),
    # Its text part; the sizes that are not named are those of transformers' defaults, which are this model's.
    "qwen35_9b": Preset("Qwen/Qwen3.5-9B", _sizes("qwen3_5_text", 32, 4096, 12288, 16, 4, 248320)),
    "mixtral_8x7b_instruct": Preset(
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        {**_sizes("mixtral", 32, 4096, 14336, 32, 8, 32000), "num_local_experts": 8, "num_experts_per_tok": 2},
    ),
    "qwen3_30b_a3b": Preset(
        "Qwen/Qwen3-30B-A3B",
        {
            **_sizes("qwen3_moe", 48, 2048, 6144, 32, 4, 151936),
            "head_dim": 128,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
    ),
    "olmoe_1b_7b_instruct": Preset(
        "allenai/OLMoE-1B-7B-0924-Instruct",
        {**_sizes("olmoe", 16, 2048, 1024, 16, 16, 50304), "num_experts": 64, "num_experts_per_tok": 8},
    ),
}
