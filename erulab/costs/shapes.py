"""Reads the sizes of a causal language model that its costs depend on from a Hugging Face config.json."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from erulab.costs.families import ConfigReader, Family, Mixture, Norm, Recurrence


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
    copies: int = 1  # experts that have one such matrix each
    active: int = 1  # of them that a token goes through
    adaptable: bool = True  # whether adapters can be put on it: not on routers and experts

    @property
    def weights(self) -> int:
        """Returns the entries that a token is multiplied with."""
        return self.active * self.inputs * self.outputs

    @property
    def stored(self) -> int:
        """Returns the entries that the model holds."""
        return self.copies * self.inputs * self.outputs


@dataclass(frozen=True)
class Adapters:
    """Low-rank adapters on matrices of every block."""

    rank: int = 0  # 0: none
    targets: tuple[str, ...] = ()  # names of the matrices; empty: all

    def on(self, linear: Linear) -> bool:
        """Returns whether this matrix has an adapter."""
        return self.rank > 0 and linear.adaptable and (not self.targets or linear.name in self.targets)


NO_ADAPTERS = Adapters()


@dataclass(frozen=True)
class Block:
    """One kind of block."""

    linears: tuple[Linear, ...]  # in the order in which they run
    recurrent: bool = False  # the gated delta rule in place of attention
    others: int = 0  # parameters in no matrix: norms, convolution, decay


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a causal language model: `layers` blocks between embedding and head."""

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
    mixture: Mixture | None = None
    recurrence: Recurrence | None = None
    capped_scores: bool = False  # of attention: they are computed outside of fused kernels
    capped_logits: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """Reads the shape from the content of a config.json.

        Raises:
            ConfigError: the model type is unknown, or a size is missing.
        """
        read = ConfigReader(config)
        family, kind = read.family, read.kind
        width, heads = read.size("hidden_size"), read.size("num_attention_heads")
        attention_bias = bool(read.value("attention_bias", False))
        fallback = {"gpt2": "gelu_new", "phi": "gelu_new", "gemma": "gelu_pytorch_tanh"}.get(kind, "silu")
        return cls(
            family=family,
            layers=read.size("num_hidden_layers"),
            width=width,
            heads=heads,
            kv_heads=read.size("num_key_value_heads", heads),
            head_dim=read.size("head_dim", family.head_dim or width // heads),
            mlp_width=read.size("intermediate_size", 4 * width if kind == "gpt2" else None),
            vocabulary=read.size("vocab_size"),
            tied=bool(read.value("tie_word_embeddings", family.tied)),
            activation=str(read.value("hidden_act", fallback)),
            qkv_bias=family.qkv_bias or attention_bias,
            out_bias=family.out_bias or attention_bias,
            mlp_bias=family.mlp_bias or bool(read.value("mlp_bias", False)),
            positions=read.size("max_position_embeddings") if kind == "gpt2" else 0,
            mixture=read.mixture(),
            recurrence=read.recurrence(),
            capped_scores=read.capped("attn_logit_softcapping"),
            capped_logits=read.capped("final_logit_softcapping"),
        )

    def blocks(self, layer: int = 0, last: int | None = None) -> Mapping[Block, int]:
        """Returns the kinds of blocks layer .. last-1 (None: to the end), in order, with the number of each."""
        return Counter(self.every_block[layer:last])

    @functools.cached_property
    def every_block(self) -> tuple[Block, ...]:
        """The block at each index."""
        return tuple(map(self._block, range(self.layers)))

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Returns the matrices of a block, or of one block of each kind."""
        return tuple(dict.fromkeys(linear for block in self.blocks() for linear in block.linears))

    @property
    def adaptable(self) -> tuple[str, ...]:
        """Returns the names of all matrices that adapters can be put on."""
        return tuple(dict.fromkeys(linear.name for linear in self.linears if linear.adaptable))

    @property
    def norms(self) -> int:
        """Returns the number of norms of the model's width in one block."""
        return 1 if self.family.parallel else 4 if self.family.post_norms else 2

    @property
    def linear_weights(self) -> int:
        """Returns the entries of all blocks' matrices that a token is multiplied with, without biases."""
        return sum(n * linear.weights for block, n in self.blocks().items() for linear in block.linears)

    @property
    def dense_weights(self) -> int:
        """Returns the entries of all blocks' matrices that are no experts."""
        return sum(n * one.stored for block, n in self.blocks().items() for one in block.linears if one.copies == 1)

    @property
    def active_mlp_width(self) -> int:
        """Returns the width of the MLP, or of all experts that a token goes through."""
        return self.mlp_width if self.mixture is None else self.mixture.active * self.mixture.width

    @property
    def head_weights(self) -> int:
        """Returns the number of entries in the matrix of the head, tied or not."""
        return self.width * self.vocabulary

    @property
    def parameters(self) -> int:
        """Returns the number of trainable parameters; a tied head counts once, and every expert."""
        blocks = sum(
            n * (block.others + sum(linear.stored + linear.bias * linear.outputs for linear in block.linears))
            for block, n in self.blocks().items()
        )
        head = self.family.head_bias * self.vocabulary + (0 if self.tied else self.head_weights)
        return blocks + self._norm + (self.vocabulary + self.positions) * self.width + head

    @property
    def active_parameters(self) -> int:
        """Returns the parameters that one token goes through: of the experts only those it is sent to."""
        idle = (linear.stored - linear.weights for block in self.blocks() for linear in block.linears)
        counts = (n for block, n in self.blocks().items() for _ in block.linears)
        return self.parameters - sum(one * n for one, n in zip(idle, counts, strict=True))

    def adapter_parameters(self, adapters: Adapters) -> int:
        """Returns the parameters of adapters on the blocks' matrices (the head gets none)."""
        return sum(
            n * adapters.rank * (linear.inputs + linear.outputs)
            for block, n in self.blocks().items()
            for linear in block.linears
            if adapters.on(linear)
        )

    @property
    def _norm(self) -> int:
        return self.width * (2 if self.family.norm is Norm.layer else 1)

    def _block(self, index: int) -> Block:
        recurrence = self.recurrence if self.recurrence and index in self.recurrence.blocks else None
        mixture = self.mixture if self.mixture and index not in self.mixture.dense else None
        mixing, others = self._attention() if recurrence is None else self._delta(recurrence)
        mlp = self._mlp() if mixture is None else self._experts(mixture)
        return Block((*mixing, *mlp), recurrence is not None, self.norms * self._norm + others)

    def _attention(self) -> tuple[tuple[Linear, ...], int]:
        d, q, kv = self.width, self.heads * self.head_dim, self.kv_heads * self.head_dim
        family = self.family
        outputs = (q + 2 * kv,) if family.fused_qkv else (2 * q if family.gated_attention else q, kv, kv)
        sizes = (
            *((Place.attention_in, d, n, self.qkv_bias) for n in outputs),
            (Place.attention_out, q, d, self.out_bias),
        )
        norms = (q + kv if family.wide_qk_norm else 2 * self.head_dim) if family.qk_norm else 0
        return tuple(Linear(name, *size) for name, size in zip(family.names, sizes, strict=False)), norms

    def _delta(self, delta: Recurrence) -> tuple[tuple[Linear, ...], int]:
        into = {
            "in_proj_qkv": delta.channels,
            "in_proj_z": delta.values,
            "in_proj_b": delta.value_heads,
            "in_proj_a": delta.value_heads,
        }
        linears = (
            *(Linear(name, Place.attention_in, self.width, n, False) for name, n in into.items()),
            Linear("out_proj", Place.attention_out, delta.values, self.width, False),
        )
        # The convolution's kernels, a decay and its bias per head, and the norm of one head's values.
        return linears, delta.channels * delta.kernel + 2 * delta.value_heads + delta.value_dim

    def _mlp(self) -> tuple[Linear, ...]:
        d, f, family = self.width, self.mlp_width, self.family
        into = ((2 * f,) if family.fused_gate else (f, f)) if family.gated else (f,)
        sizes = (*((Place.mlp_in, d, n, self.mlp_bias) for n in into), (Place.mlp_out, f, d, self.mlp_bias))
        names = family.names[-len(sizes) :]
        # peft takes an MLP's names for experts where the model has both.
        adaptable = self.mixture is None
        return tuple(Linear(n, *size, adaptable=adaptable) for n, size in zip(names, sizes, strict=True))

    def _experts(self, mixture: Mixture) -> tuple[Linear, ...]:
        d, f, copies, active = self.width, mixture.width, mixture.experts, mixture.active
        return (
            Linear("gate", Place.mlp_in, d, copies, False, adaptable=False),
            Linear("gate_up_proj", Place.mlp_in, d, 2 * f, False, copies, active, adaptable=False),
            Linear("down_proj", Place.mlp_out, f, d, False, copies, active, adaptable=False),
        )
