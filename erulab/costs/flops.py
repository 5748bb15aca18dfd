"""FLOPs of forwards and backwards in closed form; a multiplication with its addition counts as 2.

Counted are matrix products: the linear layers of the blocks at every position, attention scores and values over the
whole square of a row (the half that the causal mask hides is computed and thrown away; torch's own counter counts it
too), and the head at supervised positions only, where erulab computes it. Norms, activations, rotary embeddings and the
softmax are left out: they matter on tiny models, and are below 1 % on models of 100M parameters and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from erulab.costs.shapes import NO_ADAPTERS, Adapters, Linear, ModelShape, Place


class Backward(Enum):
    """The tensors that a backward computes gradients of."""

    full = "full"  # activations and all weights
    lora = "lora"  # activations and adapters
    activations = "activations"  # a state between blocks: latent_pgd's delta
    frozen = "frozen"  # nothing


@dataclass(frozen=True)
class TokenCounts:
    """The sizes of a forward that its FLOPs depend on. All are sums over rows, so that they add and scale."""

    count: float = 0.0  # rows
    tokens: float = 0.0  # positions that are computed, padding included
    squares: float = 0.0  # pairs of positions in attention: squared lengths; with a cache new times seen positions
    supervised: float = 0.0  # positions that reach the head

    @classmethod
    def of(cls, lengths: Sequence[float], supervised: float) -> TokenCounts:
        """Counts rows of these lengths, with so many supervised positions in all rows together."""
        return cls(len(lengths), sum(lengths), sum(length**2 for length in lengths), supervised)

    @classmethod
    def continued(cls, count: int, new: int, seen: int) -> TokenCounts:
        """Counts a forward with a key-value cache, of which only the last position of each row reaches the head.

        Args:
            count: rows.
            new: positions that are computed, per row.
            seen: positions that each of them attends to, padding included.
        """
        return cls(count, count * new, count * new * seen, count)

    def __add__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(
            self.count + other.count,
            self.tokens + other.tokens,
            self.squares + other.squares,
            self.supervised + other.supervised,
        )

    def times(self, factor: float) -> TokenCounts:
        """Scales all counts."""
        return TokenCounts(self.count * factor, self.tokens * factor, self.squares * factor, self.supervised * factor)


def forward(shape: ModelShape, rows: TokenCounts, *, layer: int = 0, adapters: Adapters = NO_ADAPTERS) -> float:
    """Returns the FLOPs of one forward.

    Args:
        rows: the positions that are computed.
        layer: the first block that is run; the blocks below it are skipped.
        adapters: of the model, if any.
    """
    share = (shape.layers - layer) / shape.layers
    weights = shape.linear_weights + shape.adapter_parameters(adapters)
    return share * (2 * weights * rows.tokens + _attention_flops(shape, rows)) + _head_flops(shape, rows)


def recompute(shape: ModelShape, rows: TokenCounts, *, adapters: Adapters = NO_ADAPTERS) -> float:
    """Returns the FLOPs that gradient checkpointing adds to a backward: the blocks again, without their last matrix.

    torch stops a recomputation as soon as everything that backward needs is there, and the last of it is the input of
    the last matrix. With adapters it is the input of their second matrix, which peft runs after the weights themselves.
    """
    final = shape.linears[-1]
    last = shape.layers * (adapters.rank * final.outputs if adapters.on(final) else final.weights)
    headless = TokenCounts(rows.count, rows.tokens, rows.squares)
    return forward(shape, headless, adapters=adapters) - 2 * last * rows.tokens


def backward(
    shape: ModelShape,
    rows: TokenCounts,
    kind: Backward,
    *,
    layer: int = 0,
    adapters: Adapters = NO_ADAPTERS,
    checkpointing: bool = False,
) -> float:
    """Returns the FLOPs of the backward that follows `forward(shape, rows)`.

    A matrix product has two gradients, each as expensive as the product itself. Attention has no weights: its backward
    always costs twice its forward.

    Args:
        rows: the positions that the forward computed.
        kind: the tensors that gradients are computed of.
        layer: with Backward.activations, the block whose input the gradient is of; only blocks from there on count.
        adapters: of the model in the forward.
        checkpointing: whether blocks are recomputed. With adapters, peft then makes the embedding's output require a
            gradient, so the first block passes one on. The recomputation itself is `recompute`.
    """
    if kind is Backward.frozen:
        return 0.0
    if kind is Backward.full:
        return 2 * forward(shape, rows)
    if kind is Backward.activations:
        share = (shape.layers - layer) / shape.layers
        weights = shape.linear_weights + shape.adapter_parameters(adapters)
        return share * (2 * weights * rows.tokens + 2 * _attention_flops(shape, rows)) + _head_flops(shape, rows)
    # Nothing below the adapters of the first block is trained, so that block passes no gradient on to its input.
    first, later = (_block_backward(shape, adapters, inputs) for inputs in (checkpointing, True))
    entries, share = (one + (shape.layers - 1) * other for one, other in zip(first, later, strict=True))
    return (
        2 * entries * rows.tokens + 2 * share / shape.layers * _attention_flops(shape, rows) + _head_flops(shape, rows)
    )


def _block_backward(shape: ModelShape, adapters: Adapters, inputs: bool) -> tuple[float, float]:
    """Counts the products in the backward of one block where only adapters are trained.

    Args:
        inputs: whether the block's input requires a gradient.
    Returns:
        The entries of all matrices that take part in a product; the share of attention's backward that is computed.
    """

    def trained(place: Place) -> list[bool]:
        return [adapters.on(linear) for linear in shape.linears if linear.place is place]

    queries, keys, values = (inputs or any(part) for part in _query_key_value(trained(Place.attention_in)))
    attention = queries or keys or values
    middle = inputs if shape.family.parallel else inputs or attention or any(trained(Place.attention_out))
    input_gradient = {
        Place.attention_in: inputs,
        Place.attention_out: attention,
        Place.mlp_in: middle,
        Place.mlp_out: middle or any(trained(Place.mlp_in)),
    }

    def entries(linear: Linear) -> int:
        passed = linear.weights if input_gradient[linear.place] else 0
        if not adapters.on(linear):
            return passed
        # Both matrices of an adapter are trained; the first passes a gradient on only where its input requires one.
        return passed + adapters.rank * (linear.inputs * (1 + input_gradient[linear.place]) + 2 * linear.outputs)

    # Four equal products: the gradients of queries, keys, scores and values.
    share = (queries + keys + (queries or keys) + values) / 4
    return sum(map(entries, shape.linears)), share


def _query_key_value(trained: list[bool]) -> list[list[bool]]:
    """Splits the input matrices of attention into query, key and value; a fused matrix stands for all three."""
    return [trained] * 3 if len(trained) == 1 else [[one] for one in trained]


def _attention_flops(shape: ModelShape, rows: TokenCounts) -> float:
    return 4 * shape.layers * shape.heads * shape.head_dim * rows.squares


def _head_flops(shape: ModelShape, rows: TokenCounts) -> float:
    return 2 * shape.head_weights * rows.supervised
