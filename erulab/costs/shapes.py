"""Reads the sizes of a causal language model that its costs depend on from a Hugging Face config.json."""

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


FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(qk_norm=True, head_dim=128),
    "gemma": Family(norm=Norm.wide_rms, tied=True, head_dim=256),
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


class Place(Enum):
    """The place of a matrix in its block."""

    attention_in = "attention_in"
    attention_out = "attention_out"
    mlp_in = "mlp_in"
    mlp_out = "mlp_out"


@dataclass(frozen=True)
class Linear:
    """One kind of matrix in a block, which maps `inputs` numbers to `outputs` numbers."""

    name: str  # of its module in transformers
    place: Place
    inputs: int
    outputs: int
    bias: bool

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Adapters:
    """Low-rank adapters on matrices of every block."""

    rank: int = 0  # 0: none
    targets: tuple[str, ...] = ()  # names of the matrices; empty: all

    def on(self, linear: Linear) -> bool:
        """Returns whether this matrix has an adapter."""
        return self.rank > 0 and (not self.targets or linear.name in self.targets)


NO_ADAPTERS = Adapters()


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a causal language model: `layers` equal blocks between embedding and head."""

    family: Family
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    vocabulary: int
    tied: bool
    activation: str
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    positions: int = 0  # learned position embeddings

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """Reads the shape from the content of a config.json.

        Raises:
            ConfigError: the model type is unknown, or a size is missing.
        """
        kind = str(config.get("model_type"))
        if kind not in FAMILIES:
            raise ConfigError(
                f"model_type {kind!r} is not known to erulab.costs; known: {', '.join(FAMILIES)}: costs can be planned "
                "for these only"
            )
        family = FAMILIES[kind]

        def value(key: str, default: Any = None) -> Any:
            found = config.get(GPT2_KEYS.get(key, key) if kind == "gpt2" else key)
            return default if found is None else found

        def size(key: str, default: int | None = None) -> int:
            found = value(key, default)
            if not isinstance(found, int) or isinstance(found, bool) or found < 1:
                raise ConfigError(f"config.json of a {kind} model: {key} must be a whole number > 0, got {found}")
            return found

        width, heads = size("hidden_size"), size("num_attention_heads")
        attention_bias = bool(value("attention_bias", False))
        fallback = {"gpt2": "gelu_new", "phi": "gelu_new", "gemma": "gelu_pytorch_tanh"}.get(kind, "silu")
        return cls(
            family=family,
            layers=size("num_hidden_layers"),
            width=width,
            heads=heads,
            kv_heads=size("num_key_value_heads", heads),
            head_dim=size("head_dim", family.head_dim or width // heads),
            mlp_width=size("intermediate_size", 4 * width if kind == "gpt2" else None),
            vocabulary=size("vocab_size"),
            tied=bool(value("tie_word_embeddings", family.tied)),
            activation=str(value("hidden_act", fallback)),
            qkv_bias=family.qkv_bias or attention_bias,
            out_bias=family.out_bias or attention_bias,
            mlp_bias=family.mlp_bias or bool(value("mlp_bias", False)),
            positions=size("max_position_embeddings") if kind == "gpt2" else 0,
        )

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Returns the matrices of one block."""
        d, f, q, kv = self.width, self.mlp_width, self.heads * self.head_dim, self.kv_heads * self.head_dim
        family = self.family
        outputs = (q + 2 * kv,) if family.fused_qkv else (q, kv, kv)
        into = ((2 * f,) if family.fused_gate else (f, f)) if family.gated else (f,)
        sizes = (
            *((Place.attention_in, d, n, self.qkv_bias) for n in outputs),
            (Place.attention_out, q, d, self.out_bias),
            *((Place.mlp_in, d, n, self.mlp_bias) for n in into),
            (Place.mlp_out, f, d, self.mlp_bias),
        )
        return tuple(Linear(name, *size) for name, size in zip(family.names, sizes, strict=True))

    @property
    def norms(self) -> int:
        """Returns the number of norms on the residual stream in one block."""
        return 1 if self.family.parallel else 2

    @property
    def linear_weights(self) -> int:
        """Returns the number of entries in the matrices of all blocks, without biases."""
        return self.layers * sum(linear.weights for linear in self.linears)

    @property
    def head_weights(self) -> int:
        """Returns the number of entries in the matrix of the head, tied or not."""
        return self.width * self.vocabulary

    @property
    def parameters(self) -> int:
        """Returns the number of trainable parameters; a tied head counts once."""
        family = self.family
        norm = self.width * (2 if family.norm is Norm.layer else 1)
        block = sum(linear.weights + linear.bias * linear.outputs for linear in self.linears) + self.norms * norm
        if family.qk_norm:
            block += 2 * self.head_dim
        head = family.head_bias * self.vocabulary + (0 if self.tied else self.head_weights)
        return self.layers * block + norm + (self.vocabulary + self.positions) * self.width + head

    def adapter_parameters(self, adapters: Adapters) -> int:
        """Returns the parameters of adapters on the blocks' matrices (peft's "all-linear" leaves the head out)."""
        adapted = [linear for linear in self.linears if adapters.on(linear)]
        return self.layers * sum(adapters.rank * (linear.inputs + linear.outputs) for linear in adapted)
