"""FLOPs of backwards in closed form.

A matrix product has two gradients, each as expensive as the product itself: that of its input, which is computed if
anything below is trained, and that of its weights, if they are trained. Attention has no weights: the backward of its
products costs twice their forward, or less where not all of queries, keys and values lead to a trained weight. A
recurrence goes backward as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from erulab.costs.flops import DELTA_CHUNK, TokenCounts, head_flops, matrix_flops, mixing_flops, recompute
from erulab.costs.shapes import NO_ADAPTERS, Adapters, Block, Linear, ModelShape, Place
from erulab.costs.trained import TrainedWeights, is_weight_of


@dataclass(frozen=True)
class Gradients:
    """The gradients that a backward computes: of which weights, in a model with which adapters."""

    trained: TrainedWeights
    adapters: Adapters = NO_ADAPTERS
    # Whether blocks are recomputed. With adapters, peft then makes the embedding's output require a gradient, so that
    # the first block passes one on.
    checkpointing: bool = False

    def reach(self, shape: ModelShape, layer: int) -> bool:
        """Tells whether the states at the input of block `layer` require a gradient."""
        return self._enter or self.trained.lowest < layer

    @property
    def _enter(self) -> bool:
        return self.trained.embedding or (self.checkpointing and self.adapters.rank > 0)

    def blocks(self, last: int) -> Iterator[tuple[int, frozenset[str], bool]]:
        """Yields the blocks below `last` that a gradient reaches.

        Returns:
            Each with its index, its trained weights, and whether its input requires a gradient.
        """
        lowest = 0 if self._enter else self.trained.lowest
        for index in range(lowest, last):
            yield index, self.trained.blocks[index], index > lowest or self._enter


def backward(shape: ModelShape, rows: TokenCounts, gradients: Gradients, *, last: int | None = None) -> float:
    """Returns the FLOPs of the backward that follows `forward(shape, rows, last=last)`, without recomputation.

    Args:
        rows: the positions that the forward computed; `supervised` counts a position as often as the head read it.
        last: the layer at which the forward ended, if not at the head.
    """
    end = shape.layers if last is None else last
    blocks = 0.0
    reached = Counter((shape.every_block[index], trained, inputs) for index, trained, inputs in gradients.blocks(end))
    for (block, trained, inputs), n in reached.items():
        entries, share = _block_backward(shape, block, gradients.adapters, trained, inputs)
        blocks += n * (2 * entries * rows.tokens + share * _mixing_backward(shape, block, rows))
    return blocks + head_backward(shape, rows.supervised, gradients, shape.layers)


def head_backward(shape: ModelShape, positions: float, gradients: Gradients, layer: int) -> float:
    """Returns the FLOPs of the head's backward at so many positions, whose states are those at `layer`."""
    trained = gradients.trained
    products = trained.head + (trained.norm or gradients.reach(shape, layer))
    return products * head_flops(shape, positions)


def recomputed(shape: ModelShape, rows: TokenCounts, gradients: Gradients, *, last: int | None = None) -> float:
    """Returns the FLOPs of the blocks that gradient checkpointing runs again: those that a gradient reaches."""
    end = shape.layers if last is None else last
    first = next((index for index, *_ in gradients.blocks(end)), end)
    return recompute(shape, rows, layer=first, last=end, adapters=gradients.adapters)


def state_backward(
    shape: ModelShape,
    rows: TokenCounts,
    layer: int,
    *,
    adapters: Adapters = NO_ADAPTERS,
    checkpointing: bool = False,
) -> float:
    """Returns the FLOPs of the gradient of the input of block `layer`, without any weight's: latent_pgd's delta.

    Args:
        rows: the positions that the forward computed.
        checkpointing: whether the blocks from `layer` on are run again first; that is added.
    """
    blocks = sum(
        n * (matrix_flops(block, rows, adapters) + _mixing_backward(shape, block, rows))
        for block, n in shape.blocks(layer).items()
    )
    again = recompute(shape, rows, layer=layer, adapters=adapters) if checkpointing else 0.0
    return blocks + head_flops(shape, rows.supervised) + again


def _mixing_backward(shape: ModelShape, block: Block, rows: TokenCounts) -> float:
    """Returns the FLOPs of the backward of `mixing_flops`, if all that it reads requires a gradient."""
    twice = 2 * mixing_flops(shape, block, rows)
    delta = shape.recurrence
    if not block.recurrent or delta is None:
        return twice
    # Solving a chunk's triangular system is not counted, but the gradient of the system is a product.
    return twice + 2 * DELTA_CHUNK * (delta.key_dim + delta.value_dim) * delta.value_heads * rows.tokens


@lru_cache(maxsize=256)
def _block_backward(
    shape: ModelShape, block: Block, adapters: Adapters, trained: frozenset[str], inputs: bool
) -> tuple[float, float]:
    """Counts the products in the backward of one block.

    Args:
        trained: names of its trained weights.
        inputs: whether the block's input requires a gradient.
    Returns:
        The entries of all matrices that take part in a product; the share of the backward of attention, or of a
        recurrence, that is computed.
    """

    def changes(place: Place) -> list[bool]:
        """Returns for each matrix in a place whether it, its bias or its adapter is trained."""
        return [any(is_weight_of(name, one) for name in trained) for one in block.linears if one.place is place]

    def norm(*names: str) -> bool:
        return any(name.split(".")[-2] in names for name in trained)

    attended = inputs or norm("input_layernorm", "ln_1")
    if block.recurrent:
        queries = keys = values = attended or _reaches_recurrence(trained)
    else:
        queries, keys, values = (attended or any(part) for part in _query_key_value(changes(Place.attention_in)))
        queries, keys = queries or norm("q_norm"), keys or norm("k_norm")
    attention = queries or keys or values or (block.recurrent and any(changes(Place.attention_in)))
    middle = attended if shape.family.parallel else inputs or attention or any(changes(Place.attention_out))
    middle = middle or norm("post_attention_layernorm", "pre_feedforward_layernorm", "ln_2")
    input_gradient = {
        Place.attention_in: attended,
        Place.attention_out: attention,
        Place.mlp_in: middle,
        Place.mlp_out: middle or any(changes(Place.mlp_in)),
    }

    def entries(linear: Linear) -> int:
        passed = input_gradient[linear.place]
        mine = [name for name in trained if is_weight_of(name, linear)]
        if not adapters.on(linear):
            return linear.weights * (passed + any(not name.endswith("bias") for name in mine))
        # The second matrix of an adapter passes a gradient on to the first only where that leads somewhere.
        first, second = (any(f".lora_{factor}." in name for name in mine) for factor in "AB")
        adapter = linear.inputs * (passed + first) + linear.outputs * ((passed or first) + second)
        return linear.weights * passed + adapters.rank * adapter

    # Four equal products: the gradients of queries, keys, scores and values.
    share = (queries + keys + (queries or keys) + values) / 4
    return sum(map(entries, block.linears)), share


def _reaches_recurrence(trained: frozenset[str]) -> bool:
    """Tells whether a trained weight of a recurrent layer acts before its recurrence: not on the gate of its result."""
    parts = (name.split(".") for name in trained if name.startswith("linear_attn."))
    return any(part[1] not in ("in_proj_z", "norm", "out_proj") for part in parts)


def _query_key_value(trained: list[bool]) -> list[list[bool]]:
    """Splits the input matrices of attention into query, key and value; a fused matrix stands for all three."""
    return [trained] * 3 if len(trained) == 1 else [[one] for one in trained]
