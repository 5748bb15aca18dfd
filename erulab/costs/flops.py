"""FLOPs of forwards in closed form; a multiplication with its addition counts as 2. Backwards are in backward.py.

Counted are matrix products: the linear layers of the blocks at every position, attention scores and values over the
whole square of a row (the half that the causal mask hides is computed and thrown away; torch's own counter counts it
too), and the head at supervised positions only, where erulab computes it. Of a mixture's experts only those count that
a token is sent to. Norms, activations, rotary embeddings and the softmax are left out, and so are products inside a
loss: they matter on tiny models, and are below 1 % on models of 100M parameters and more.

Recurrent layers (the gated delta rule of Qwen 3.5) run in chunks of 64 positions. Their products are counted per
position, so the positions that fill up a row's last chunk are left out; so are the triangular system of each chunk, and
the convolution over four positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erulab.costs.shapes import NO_ADAPTERS, Adapters, Block, ModelShape

DELTA_CHUNK = 64  # positions that recurrent layers compute at once, in transformers' own code


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


def forward(
    shape: ModelShape,
    rows: TokenCounts,
    *,
    layer: int = 0,
    last: int | None = None,
    adapters: Adapters = NO_ADAPTERS,
) -> float:
    """Returns the FLOPs of one forward.

    Args:
        rows: the positions that are computed; `supervised` counts a position as often as the head reads it.
        layer: the first block that is run; the blocks below it are skipped.
        last: the forward ends at the input of this block; None: it runs through all of them.
        adapters: of the model, if any.
    """
    blocks = sum(
        n * (matrix_flops(block, rows, adapters) + mixing_flops(shape, block, rows))
        for block, n in shape.blocks(layer, last).items()
    )
    return blocks + head_flops(shape, rows.supervised)


def recompute(
    shape: ModelShape,
    rows: TokenCounts,
    *,
    layer: int = 0,
    last: int | None = None,
    adapters: Adapters = NO_ADAPTERS,
) -> float:
    """Returns the FLOPs that gradient checkpointing adds to a backward: the blocks again, without their last matrix.

    torch stops a recomputation as soon as everything that backward needs is there, and the last of it is the input of
    the last matrix. With adapters it is the input of their second matrix, which peft runs after the weights themselves.
    The result of the last matrix is needed too where a norm follows, or a product with the router's weights of experts.

    Args:
        rows, adapters: as for `forward`.
        layer, last: blocks layer .. last-1 are recomputed: those that a gradient goes through.
    """
    unused = 0
    for block, n in shape.blocks(layer, last).items():
        final = block.linears[-1]
        if not shape.family.post_norms and final.copies == 1:
            unused += n * (adapters.rank * final.outputs if adapters.on(final) else final.weights)
    headless = TokenCounts(rows.count, rows.tokens, rows.squares)
    return forward(shape, headless, layer=layer, last=last, adapters=adapters) - 2 * unused * rows.tokens


def matrix_flops(block: Block, rows: TokenCounts, adapters: Adapters) -> float:
    """Returns the FLOPs of one product with each matrix of a block, and with its adapters."""
    adapted = sum(adapters.rank * (one.inputs + one.outputs) for one in block.linears if adapters.on(one))
    return 2 * (sum(linear.weights for linear in block.linears) + adapted) * rows.tokens


def mixing_flops(shape: ModelShape, block: Block, rows: TokenCounts) -> float:
    """Returns the FLOPs in the forward of one block's attention scores and values, or of its recurrence."""
    if not block.recurrent:
        return 4 * shape.heads * shape.head_dim * rows.squares
    delta = shape.recurrence
    assert delta is not None
    k, v = delta.key_dim, delta.value_dim
    # Keys with keys, queries with keys and the result, inside a chunk; three products with the state.
    per_head = 2 * (2 * DELTA_CHUNK * k + DELTA_CHUNK * v + 3 * k * v)
    return delta.value_heads * per_head * rows.tokens


def head_flops(shape: ModelShape, positions: float) -> float:
    """Returns the FLOPs of the head's forward at so many positions."""
    return 2 * shape.head_weights * positions
