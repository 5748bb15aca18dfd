"""The trained weights of a model, read off their names: they decide which products a backward computes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from erulab.costs.families import Norm
from erulab.costs.shapes import Adapters, Linear, ModelShape, Place

BLOCK = re.compile(r"\.(?:layers|h)\.(\d+)\.(.+)$")
ATTENTION = (Place.attention_in, Place.attention_out)


@dataclass(frozen=True)
class TrainedWeights:
    """The trained weights of a model, by the part of it that they are in."""

    # For each block the names of its trained weights inside of it, such as "mlp.down_proj.weight".
    blocks: tuple[frozenset[str], ...]
    embedding: bool
    norm: bool  # the final norm
    head: bool  # the matrix of the head; a tied one is trained if the embedding is

    @property
    def lowest(self) -> int:
        """Returns the lowest block with a trained weight; the number of blocks if none has any."""
        return next((index for index, names in enumerate(self.blocks) if names), len(self.blocks))


@lru_cache(maxsize=16)
def trained_weights(shape: ModelShape, names: tuple[str, ...]) -> TrainedWeights:
    """Sorts the trained weights of a model by the part that they are in.

    Args:
        names: of the trained weights, as the model or peft's wrapper of it names them; a tied weight once.
    """
    blocks: list[set[str]] = [set() for _ in range(shape.layers)]
    outside = set()
    for name in names:
        found = BLOCK.search(name)
        if found is None:
            outside.add(name.split(".")[-2])
        else:
            blocks[int(found[1])].add(found[2])
    embedding = bool(outside & {"embed_tokens", "wte", "wpe"})
    return TrainedWeights(
        tuple(map(frozenset, blocks)),
        embedding,
        bool(outside - {"embed_tokens", "wte", "wpe", "lm_head"}),
        embedding if shape.tied else "lm_head" in outside,
    )


def weight_shapes(shape: ModelShape, adapters: Adapters) -> dict[str, tuple[int, ...]]:
    """Lists the weights that training may change, with their shapes; the two sizes of a matrix in either order.

    Names are those of transformers' modules or, of adapters, those that peft gives them.
    """
    if adapters.rank:
        return {
            f"base_model.model.{_outer(shape)}.{name}.lora_{factor}.default.weight": (adapters.rank, size)
            for name, linear in _matrices(shape)
            if adapters.on(linear)
            for factor, size in (("A", linear.inputs), ("B", linear.outputs))
        }
    width, outer = shape.width, _outer(shape)
    gpt2 = outer == "transformer"
    shapes: dict[str, tuple[int, ...]] = {
        f"{outer}.{'wte' if gpt2 else 'embed_tokens'}.weight": (shape.vocabulary, width)
    }
    if gpt2:
        shapes[f"{outer}.wpe.weight"] = (shape.positions, width)
    for name, linear in _matrices(shape):
        if linear.copies > 1:
            shapes[f"{outer}.{name}"] = (linear.copies, linear.outputs, linear.inputs)
        else:
            shapes[f"{outer}.{name}.weight"] = (linear.outputs, linear.inputs)
        if linear.bias:
            shapes[f"{outer}.{name}.bias"] = (linear.outputs,)
    shapes |= {f"{outer}.{name}": size for name, size in _vectors(shape)}
    if not shape.tied:
        shapes["lm_head.weight"] = (shape.vocabulary, width)
    if shape.family.head_bias:
        shapes["lm_head.bias"] = (shape.vocabulary,)
    return shapes


def is_weight_of(name: str, linear: Linear) -> bool:
    """Tells whether a name inside a block is that of a parameter of this matrix, or of its adapter."""
    parts = name.split(".")
    return linear.name in parts and ("attn" in parts[0]) == (linear.place in ATTENTION)


def _outer(shape: ModelShape) -> str:
    return "transformer" if shape.positions else "model"


def _block(shape: ModelShape, index: int) -> str:
    return f"h.{index}" if shape.positions else f"layers.{index}"


def _matrices(shape: ModelShape) -> Iterator[tuple[str, Linear]]:
    """Yields the matrices of all blocks with their names below the outer module; all experts' matrices as one."""
    for index, block in enumerate(shape.every_block):
        attention = "attn" if shape.positions else "linear_attn" if block.recurrent else "self_attn"
        for linear in block.linears:
            part = attention if linear.place in ATTENTION else "mlp" if linear.copies == 1 else "mlp.experts"
            yield f"{_block(shape, index)}.{part}.{linear.name}", linear


def _vectors(shape: ModelShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields the weights beside matrices with their names below the outer module and their sizes."""
    for index, block in enumerate(shape.every_block):
        name = _block(shape, index)
        for norm in _norms(shape):
            yield f"{name}.{norm}.weight", (shape.width,)
            if shape.family.norm is Norm.layer:
                yield f"{name}.{norm}.bias", (shape.width,)
        if block.recurrent and shape.recurrence is not None:
            delta = shape.recurrence
            yield f"{name}.linear_attn.conv1d.weight", (delta.channels, 1, delta.kernel)
            yield f"{name}.linear_attn.dt_bias", (delta.value_heads,)
            yield f"{name}.linear_attn.A_log", (delta.value_heads,)
            yield f"{name}.linear_attn.norm.weight", (delta.value_dim,)
        elif shape.family.qk_norm:
            wide = shape.family.wide_qk_norm
            yield f"{name}.self_attn.q_norm.weight", (shape.head_dim * (shape.heads if wide else 1),)
            yield f"{name}.self_attn.k_norm.weight", (shape.head_dim * (shape.kv_heads if wide else 1),)
    final = "ln_f" if shape.positions else "final_layernorm" if shape.family.parallel else "norm"
    yield f"{final}.weight", (shape.width,)
    if shape.family.norm is Norm.layer:
        yield f"{final}.bias", (shape.width,)


def _norms(shape: ModelShape) -> tuple[str, ...]:
    """Returns the names of the norms of the model's width in a block."""
    if shape.positions:
        return ("ln_1", "ln_2")
    after = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
    return ("input_layernorm", "post_attention_layernorm", *after)[: shape.norms]
