"""FLOPs of forwards and backwards in closed form; a multiplication with its addition counts as 2.

Counted are matrix products: the blocks' linear layers at every position, attention scores and values over the whole
square of a row (the half that the causal mask hides is computed and thrown away, as torch's own counter has it), and
the head at supervised positions only, where erulab computes it. Norms, activations, rotary embeddings and the softmax
are left out: on tiny models they would matter, on models of 100M parameters and more they are below 1 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from erulab.costs.shapes import NO_ADAPTERS, Adapters, Linear, ModelShape, Place


class Backward(Enum):
    """What gradients are wanted of."""

    full = "full"  # activations and all weights
    lora = "lora"  # activations and adapters
    activations = "activations"  # a state between blocks: latent_pgd's delta
    frozen = "frozen"  # nothing


@dataclass(frozen=True)
class Rows:
    """Rows that run together, or their mean over steps: sums, so that they add and scale.

    `tokens` are positions that are computed, padding included; `squares` the sum of squared lengths, which attention
    goes by (of pairs that see one another, with a cache); `supervised` the positions that reach the head.
    """

    count: float = 0.0
    tokens: float = 0.0
    squares: float = 0.0
    supervised: float = 0.0

    @classmethod
    def of(cls, lengths: Sequence[float], supervised: float) -> Rows:
        """Rows of these lengths; `supervised`: positions of all of them together."""
        return cls(len(lengths), sum(lengths), sum(length**2 for length in lengths), supervised)

    @classmethod
    def continued(cls, count: int, new: int, seen: int) -> Rows:
        """`count` rows of `new` positions with a key-value cache: each position attends to `seen`, padding included.

        Only the last position of a row reaches the head.
        """
        return cls(count, count * new, count * new * seen, count)

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            self.count + other.count,
            self.tokens + other.tokens,
            self.squares + other.squares,
            self.supervised + other.supervised,
        )

    def times(self, factor: float) -> Rows:
        return Rows(self.count * factor, self.tokens * factor, self.squares * factor, self.supervised * factor)


def forward(shape: ModelShape, rows: Rows, *, layer: int = 0, adapters: Adapters = NO_ADAPTERS) -> float:
    """FLOPs of one forward over `rows` through the blocks from `layer` on, with adapters if any."""
    share = (shape.layers - layer) / shape.layers
    weights = shape.linear_weights + shape.adapter_parameters(adapters)
    return share * (2 * weights * rows.tokens + _attention(shape, rows)) + _head(shape, rows)


def recompute(shape: ModelShape, rows: Rows, *, adapters: Adapters = NO_ADAPTERS) -> float:
    """FLOPs that gradient checkpointing adds to a backward: the blocks again, without their last matrix.

    torch stops a recomputation once all that backward needs is there, which is the input of the last matrix: with
    adapters that of their second one, which peft runs after the weights themselves.
    """
    final = shape.linears[-1]
    last = shape.layers * (adapters.rank * final.outputs if adapters.on(final) else final.weights)
    headless = Rows(rows.count, rows.tokens, rows.squares)
    return forward(shape, headless, adapters=adapters) - 2 * last * rows.tokens


def backward(
    shape: ModelShape,
    rows: Rows,
    kind: Backward,
    *,
    layer: int = 0,
    adapters: Adapters = NO_ADAPTERS,
    checkpointing: bool = False,
) -> float:
    """FLOPs of the backward that belongs to `forward(shape, rows)`.

    A matrix product has two gradients, each as dear as itself. Attention has no weights: twice its forward always.

    Args:
        layer: with Backward.activations, the block whose input the gradient is of; only later blocks are gone through.
        adapters: that the forward ran.
        checkpointing: peft has the embedding's output want a gradient then.
    """
    if kind is Backward.frozen:
        return 0.0
    if kind is Backward.full:
        return 2 * forward(shape, rows)
    if kind is Backward.activations:
        share = (shape.layers - layer) / shape.layers
        weights = shape.linear_weights + shape.adapter_parameters(adapters)
        return share * (2 * weights * rows.tokens + 2 * _attention(shape, rows)) + _head(shape, rows)
    # Nothing below the first block's first adapters is trained, so what stands there passes no gradient on.
    first, later = (_block_backward(shape, adapters, inputs) for inputs in (checkpointing, True))
    entries, share = (one + (shape.layers - 1) * other for one, other in zip(first, later, strict=True))
    return 2 * entries * rows.tokens + 2 * share / shape.layers * _attention(shape, rows) + _head(shape, rows)


def _block_backward(shape: ModelShape, adapters: Adapters, inputs: bool) -> tuple[float, float]:
    """What one block's backward goes through where only adapters are trained.

    Args:
        inputs: whether the block's input wants a gradient.
    Returns:
        Entries of matrices, a product with each of them; the share of attention's backward.
    """

    def trained(place: Place) -> list[bool]:
        return [adapters.on(linear) for linear in shape.linears if linear.place is place]

    queries, keys, values = (inputs or any(part) for part in _thirds(trained(Place.attention_in)))
    attention = queries or keys or values
    middle = inputs if shape.family.parallel else inputs or attention or any(trained(Place.attention_out))
    wanted = {
        Place.attention_in: inputs,
        Place.attention_out: attention,
        Place.mlp_in: middle,
        Place.mlp_out: middle or any(trained(Place.mlp_in)),
    }

    def entries(linear: Linear) -> int:
        passed = linear.weights if wanted[linear.place] else 0
        if not adapters.on(linear):
            return passed
        # Both of an adapter's matrices are trained; the first passes a gradient on only where one is wanted.
        return passed + adapters.rank * (linear.inputs * (1 + wanted[linear.place]) + 2 * linear.outputs)

    # Gradients of queries, keys, scores and values.
    share = (queries + keys + (queries or keys) + values) / 4
    return sum(map(entries, shape.linears)), share


def _thirds(trained: list[bool]) -> list[list[bool]]:
    """Query, key and value of each of these, or of the one that gives all three."""
    return [trained] * 3 if len(trained) == 1 else [[one] for one in trained]


def _attention(shape: ModelShape, rows: Rows) -> float:
    return 4 * shape.layers * shape.heads * shape.head_dim * rows.squares


def _head(shape: ModelShape, rows: Rows) -> float:
    return 2 * shape.head_weights * rows.supervised
