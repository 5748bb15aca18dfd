"""FLOPs of forwards and backwards in closed form; a multiplication with its addition counts as 2.

Counted are matrix products: the linear layers of the blocks at every position, attention scores and values over the
whole square of a row (the half that the causal mask hides is computed and thrown away; torch's own counter counts it
too), and the head at supervised positions only, where erulab computes it. Of a mixture's experts only those count that
a token is sent to. Norms, activations, rotary embeddings and the softmax are left out: they matter on tiny models, and
are below 1 % on models of 100M parameters and more.

Recurrent layers (the gated delta rule of Qwen 3.5) run in chunks of 64 positions. Their products are counted per
position, so the positions that fill up a row's last chunk are left out; so are the triangular system of each chunk, and
the convolution over four positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from erulab.costs.shapes import NO_ADAPTERS, Adapters, Block, Linear, ModelShape, Place

DELTA_CHUNK = 64  # positions that recurrent layers compute at once, in transformers' own code


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
    blocks = sum(n * _block_forward(shape, block, rows, adapters) for block, n in shape.blocks(layer).items())
    return blocks + _head_flops(shape, rows)


def recompute(shape: ModelShape, rows: TokenCounts, *, adapters: Adapters = NO_ADAPTERS) -> float:
    """Returns the FLOPs that gradient checkpointing adds to a backward: the blocks again, without their last matrix.

    torch stops a recomputation as soon as everything that backward needs is there, and the last of it is the input of
    the last matrix. With adapters it is the input of their second matrix, which peft runs after the weights themselves.
    """
    last = 0
    for block, n in shape.blocks().items():
        final = block.linears[-1]
        # A norm after the last matrix, or the router's weights for experts, need what it gives.
        if not shape.family.post_norms and final.copies == 1:
            last += n * (adapters.rank * final.outputs if adapters.on(final) else final.weights)
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
    head = _head_flops(shape, rows)
    if kind is Backward.full:
        return 2 * head + sum(
            n * (2 * _entries_flops(block, rows, NO_ADAPTERS) + _mixing_backward(shape, block, rows))
            for block, n in shape.blocks().items()
        )
    if kind is Backward.activations:
        passed = sum(
            n * (_entries_flops(block, rows, adapters) + _mixing_backward(shape, block, rows))
            for block, n in shape.blocks(layer).items()
        )
        return passed + head
    # Nothing below the adapters of the first block is trained, so that block passes no gradient on to its input.
    first = shape.first_block
    return (
        _block_backward(shape, first, rows, adapters, inputs=checkpointing)
        + sum(n * _block_backward(shape, block, rows, adapters, inputs=True) for block, n in shape.blocks(1).items())
        + head
    )


def _block_forward(shape: ModelShape, block: Block, rows: TokenCounts, adapters: Adapters) -> float:
    return _entries_flops(block, rows, adapters) + _mixing_flops(shape, block, rows)


def _entries_flops(block: Block, rows: TokenCounts, adapters: Adapters) -> float:
    """Returns the FLOPs of one product with each matrix of a block, and with its adapters."""
    adapted = sum(adapters.rank * (one.inputs + one.outputs) for one in block.linears if adapters.on(one))
    return 2 * (sum(linear.weights for linear in block.linears) + adapted) * rows.tokens


def _block_backward(shape: ModelShape, block: Block, rows: TokenCounts, adapters: Adapters, *, inputs: bool) -> float:
    """Returns the FLOPs of the backward of one block where only adapters are trained.

    Args:
        inputs: whether the block's input requires a gradient.
    """

    def trained(place: Place) -> list[bool]:
        return [adapters.on(linear) for linear in block.linears if linear.place is place]

    projections = trained(Place.attention_in)
    if block.recurrent:
        # One matrix gives queries, keys and values; the last two give what the recurrence decays by and writes with.
        in_proj_qkv, _, *rates = projections
        queries = keys = values = inputs or in_proj_qkv or any(rates)
    else:
        queries, keys, values = (inputs or any(part) for part in _query_key_value(projections))
    attention = queries or keys or values or any(projections)
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
    return 2 * sum(map(entries, block.linears)) * rows.tokens + share * _mixing_backward(shape, block, rows)


def _query_key_value(trained: list[bool]) -> list[list[bool]]:
    """Splits the input matrices of attention into query, key and value; a fused matrix stands for all three."""
    return [trained] * 3 if len(trained) == 1 else [[one] for one in trained]


def _mixing_flops(shape: ModelShape, block: Block, rows: TokenCounts) -> float:
    """Returns the FLOPs of what lets positions of one block see each other, without its matrices."""
    if not block.recurrent:
        return 4 * shape.heads * shape.head_dim * rows.squares
    delta = shape.recurrence
    assert delta is not None
    k, v = delta.key_dim, delta.value_dim
    # Keys with keys, queries with keys and the result, inside a chunk; three products with the state.
    per_head = 2 * (2 * DELTA_CHUNK * k + DELTA_CHUNK * v + 3 * k * v)
    return delta.value_heads * per_head * rows.tokens


def _mixing_backward(shape: ModelShape, block: Block, rows: TokenCounts) -> float:
    """Returns the FLOPs of the backward of `_mixing_flops`, if all that it reads requires a gradient."""
    twice = 2 * _mixing_flops(shape, block, rows)
    delta = shape.recurrence
    if not block.recurrent or delta is None:
        return twice
    # Solving a chunk's triangular system is not counted, but the gradient of the system is a product.
    return twice + 2 * DELTA_CHUNK * (delta.key_dim + delta.value_dim) * delta.value_heads * rows.tokens


def _head_flops(shape: ModelShape, rows: TokenCounts) -> float:
    return 2 * shape.head_weights * rows.supervised
