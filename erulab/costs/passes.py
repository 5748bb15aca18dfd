"""FLOPs of one forward of the policy with its backward and the reference's forward, as a method's needs make them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from erulab.costs import flops
from erulab.costs.backward import Gradients, backward, head_backward, recomputed
from erulab.costs.flops import TokenCounts
from erulab.costs.shapes import ModelShape


@dataclass(frozen=True)
class Pass:
    """Forwards of one kind with their backwards, in one optimizer step: sums over its micro-batches."""

    rows: TokenCounts  # `supervised` counts a position as often as the head reads its final state
    last: int | None = None  # the layer at which the forwards end; None: they run through the head
    # layer -> positions whose states at it the head reads
    lens: dict[int, float] = field(default_factory=dict)
    # Rows that the model before unlearning runs; `supervised`: positions that its head reads.
    reference: TokenCounts = field(default_factory=TokenCounts)
    last_reference: int | None = None
    of_adversary: bool = False  # whether it is done beside the gradient of the loss

    def __add__(self, other: Pass) -> Pass:
        """Adds the rows of another micro-batch of the same kind."""
        lens = {layer: positions + other.lens[layer] for layer, positions in self.lens.items()}
        return replace(self, rows=self.rows + other.rows, lens=lens, reference=self.reference + other.reference)


@dataclass(frozen=True)
class PassFlops:
    """FLOPs of a pass."""

    forward: float
    backward: float
    recompute: float
    reference: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.recompute + self.reference


def pass_flops(shape: ModelShape, one: Pass, gradients: Gradients) -> PassFlops:
    """Returns the FLOPs of a pass."""
    return PassFlops(
        flops.forward(shape, one.rows, last=one.last, adapters=gradients.adapters)
        + flops.head_flops(shape, sum(one.lens.values())),
        backward(shape, one.rows, gradients, last=one.last)
        + sum(head_backward(shape, positions, gradients, layer) for layer, positions in one.lens.items()),
        recomputed(shape, one.rows, gradients, last=one.last) if gradients.checkpointing else 0.0,
        flops.forward(shape, one.reference, last=one.last_reference),
    )
