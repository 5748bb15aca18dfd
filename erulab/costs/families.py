"""Model types whose costs are known, and the properties of each that its costs depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from erulab.errors import ConfigError


class Norm(Enum):
    """The norm of the blocks, as far as it changes parameters or the activations that autograd keeps."""

    rms = "rms"  # a weight; the normalised states are cast back to the format of the model before it
    wide_rms = "wide_rms"  # Gemma: computed in float32 throughout
    layer = "layer"  # a weight and a bias, one fused operation


@dataclass(frozen=True)
class Family:
    """Properties of a model type; `tied` and `head_dim` are its defaults where config.json does not say."""

    norm: Norm = Norm.rms
    gated: bool = True  # down(act(gate(x)) * up(x)); otherwise down(act(up(x)))
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    head_dim: int | None = None
    fused_qkv: bool = False  # one projection gives query, key and value
    fused_gate: bool = False  # one projection gives gate and up
    names: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    parallel: bool = False  # attention and MLP read the same normalised states: one norm per block
    partial_rotary: bool = False  # rotary embedding concatenates, which changes the layout of the result of attention
    post_norms: bool = False  # what attention and MLP write is normalised before it is added
    wide_qk_norm: bool = False  # the norms of queries and of keys run over all heads together
    gated_attention: bool = False  # the query matrix also gives a gate for the result of attention
    expert_width: str | None = None  # key of the width of an expert's MLP; None: one MLP per block
    recurrent: bool = False  # layer_types may name linear attention: layers with the gated delta rule
    capped: bool = False  # attention scores and logits are capped where config.json does not say


FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(qk_norm=True, head_dim=128),
    "gemma": Family(norm=Norm.wide_rms, tied=True, head_dim=256),
    "gemma2": Family(norm=Norm.wide_rms, tied=True, head_dim=256, post_norms=True, capped=True),
    "gemma3_text": Family(norm=Norm.wide_rms, tied=True, head_dim=256, post_norms=True, qk_norm=True),
    "mixtral": Family(expert_width="intermediate_size"),
    "qwen3_moe": Family(qk_norm=True, expert_width="moe_intermediate_size"),
    "olmoe": Family(qk_norm=True, wide_qk_norm=True, expert_width="intermediate_size"),
    "qwen3_5_text": Family(
        norm=Norm.wide_rms, qk_norm=True, head_dim=256, gated_attention=True, partial_rotary=True, recurrent=True
    ),
    "phi": Family(
        norm=Norm.layer,
        gated=False,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        head_bias=True,
        parallel=True,
        partial_rotary=True,
        names=("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    ),
    "phi3": Family(
        fused_qkv=True, fused_gate=True, partial_rotary=True, names=("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    ),
    "gpt2": Family(
        norm=Norm.layer,
        gated=False,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        tied=True,
        fused_qkv=True,
        names=("c_attn", "c_proj", "c_fc", "c_proj"),
    ),
}

# The config of GPT-2 has other names.
GPT2_KEYS = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "hidden_act": "activation_function",
    "max_position_embeddings": "n_positions",
}

# Checkpoints of text and images whose text part transformers loads as a causal language model of its own.
TEXT_PARTS = {"qwen3_5": "qwen3_5_text"}


@dataclass(frozen=True)
class Mixture:
    """The experts of the blocks that have them."""

    experts: int
    active: int  # experts that a token goes through
    width: int  # of one expert's MLP
    dense: tuple[int, ...] = ()  # indices of the blocks that have one MLP instead


@dataclass(frozen=True)
class Recurrence:
    """The sizes of layers with the gated delta rule."""

    blocks: tuple[int, ...]  # indices of the blocks that have one in place of attention
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int  # positions that the causal convolution reads

    @property
    def values(self) -> int:
        """Returns the numbers per token of all value heads."""
        return self.value_heads * self.value_dim

    @property
    def channels(self) -> int:
        """Returns the numbers per token that go through the convolution: queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.values


def is_known(kind: str) -> bool:
    """Tells whether costs of this model type can be computed."""
    return TEXT_PARTS.get(kind, kind) in FAMILIES


class ConfigReader:
    """Reads sizes from the content of a config.json.

    Raises:
        ConfigError: the model type is unknown, or a size is missing.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        kind = str(config.get("model_type"))
        part = config.get("text_config")
        if kind in TEXT_PARTS and isinstance(part, Mapping):
            kind, config = TEXT_PARTS[kind], part
        if kind not in FAMILIES:
            raise ConfigError(
                f"model_type {kind!r} is not known to erulab.costs; known: {', '.join(FAMILIES)}: costs can be planned "
                "for these only"
            )
        self.kind, self.family, self._config = kind, FAMILIES[kind], config

    def value(self, key: str, default: Any = None) -> Any:
        found = self._config.get(GPT2_KEYS.get(key, key) if self.kind == "gpt2" else key)
        return default if found is None else found

    def size(self, key: str, default: int | None = None) -> int:
        found = self.value(key, default)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise ConfigError(f"config.json of a {self.kind} model: {key} must be a whole number > 0, got {found}")
        return found

    def capped(self, key: str) -> bool:
        """Returns whether the numbers that a key is about are capped."""
        return self._config.get(key, self.family.capped) not in (None, False)

    def mixture(self) -> Mixture | None:
        """Reads the experts; None if the model type has none."""
        if self.family.expert_width is None:
            return None
        # transformers 5 writes the first name for all types, older versions wrote the second for some.
        experts = self.size("num_local_experts" if self.value("num_local_experts") is not None else "num_experts")
        step, alone = self.size("decoder_sparse_step", 1), self.value("mlp_only_layers", [])
        dense = tuple(i for i in range(self.size("num_hidden_layers")) if i in alone or (i + 1) % step)
        return Mixture(experts, self.size("num_experts_per_tok"), self.size(self.family.expert_width), dense)

    def recurrence(self) -> Recurrence | None:
        """Reads the recurrent layers; None if the model type has none."""
        if not self.family.recurrent:
            return None
        every = self.size("full_attention_interval", 4)  # of older files, which do not name the layers
        layers = range(self.size("num_hidden_layers"))
        named = self.value("layer_types", ["full_attention" if (i + 1) % every == 0 else "linear" for i in layers])
        return Recurrence(
            tuple(i for i in layers if named[i] != "full_attention"),
            self.size("linear_num_key_heads", 16),
            self.size("linear_num_value_heads", 32),
            self.size("linear_key_head_dim", 128),
            self.size("linear_value_head_dim", 128),
            self.size("linear_conv_kernel_dim", 4),
        )
