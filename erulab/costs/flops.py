"""FLOPs of forwards in closed form; a multiplication with its addition counts as 2. Backwards are in backward.py.

Counted are matrix products: the linear layers of the blocks at every position, attention scores and values over the
whole square of a row (the half that the causal mask hides is computed and thrown away; torch's own counter counts it
too), and the head at supervised positions only, where erulab computes it. Norms, activations, rotary embeddings and the
softmax are left out, and so are products inside a loss: they matter on tiny models, and are below 1 % on models of
100M parameters and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erulab.costs.shapes import NO_ADAPTERS, Adapters, ModelShape


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
    share = ((shape.layers if last is None else last) - layer) / shape.layers
    weights = shape.linear_weights + shape.adapter_parameters(adapters)
    return share * (2 * weights * rows.tokens + attention_flops(shape, rows)) + head_flops(shape, rows.supervised)


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

    Args:
        rows, adapters: as for `forward`.
        layer, last: blocks layer .. last-1 are recomputed: those that a gradient goes through.
    """
    final = shape.linears[-1]
    count = (shape.layers if last is None else last) - layer
    unused = count * (adapters.rank * final.outputs if adapters.on(final) else final.weights)
    headless = TokenCounts(rows.count, rows.tokens, rows.squares)
    return forward(shape, headless, layer=layer, last=last, adapters=adapters) - 2 * unused * rows.tokens


def attention_flops(shape: ModelShape, rows: TokenCounts) -> float:
    """Returns the FLOPs of scores and values in the forward of all blocks."""
    return 4 * shape.layers * shape.heads * shape.head_dim * rows.squares


def head_flops(shape: ModelShape, positions: float) -> float:
    """Returns the FLOPs of the head's forward at so many positions."""
    return 2 * shape.head_weights * positions
