"""FLOPs of one optimizer step of unlearning or fine-tuning, over all processes."""

from __future__ import annotations

from dataclasses import dataclass, field

from erulab.costs import flops
from erulab.costs.flops import Backward, TokenCounts
from erulab.costs.shapes import NO_ADAPTERS, Adapters, ModelShape


@dataclass(frozen=True)
class Search:
    """The inner loop of latent_pgd in one optimizer step."""

    rows: TokenCounts
    steps: int  # gradients with respect to the input of block `layer`
    layer: int


@dataclass(frozen=True)
class Step:
    """The rows that one optimizer step runs, as means over the steps of a training."""

    trained: TokenCounts  # forget rows, their paired answers and retain rows: forward and backward
    # Retain rows that a frozen copy reads too; their KL takes the heads of both models.
    kl: TokenCounts = field(default_factory=TokenCounts)
    # Prompts from whose states rfa estimates its directions: no head, no gradient.
    prompts: TokenCounts = field(default_factory=TokenCounts)
    search: Search | None = None  # latent_pgd
    # Forget rows on which the adversary's gain is measured, with two forwards; latent_pgd searches on them too.
    measured: TokenCounts = field(default_factory=TokenCounts)
    measured_search: Search | None = None


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one optimizer step, over all processes."""

    forward: float
    backward: float
    recompute: float  # gradient checkpointing
    reference: float  # the frozen copy of retain=kl
    adversary: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.recompute + self.reference + self.adversary


def step_flops(
    shape: ModelShape, step: Step, *, checkpointing: bool = False, adapters: Adapters = NO_ADAPTERS
) -> StepFlops:
    """Returns the FLOPs of a step, without the reference table of a reward, which is made once before the first step.

    Args:
        step: the rows that it runs.
        checkpointing: whether the backward recomputes the blocks.
        adapters: that are trained, if any, instead of all weights.
    """
    kind = Backward.lora if adapters.rank else Backward.full
    # For the KL the head of the policy runs a second time at the same positions, forward and backward.
    head = TokenCounts(supervised=step.kl.supervised)
    again = flops.forward(shape, head)
    adversary = flops.forward(shape, step.prompts, adapters=adapters)
    adversary += 2 * flops.forward(shape, step.measured, adapters=adapters)
    for search in (step.search, step.measured_search):
        adversary += _search_flops(shape, search, checkpointing, adapters) if search is not None else 0.0
    return StepFlops(
        forward=flops.forward(shape, step.trained, adapters=adapters) + again,
        backward=flops.backward(shape, step.trained, kind, adapters=adapters, checkpointing=checkpointing)
        + (1 if adapters.rank else 2) * again,
        recompute=flops.recompute(shape, step.trained, adapters=adapters) if checkpointing else 0.0,
        reference=flops.forward(shape, step.kl),
        adversary=adversary,
    )


def _search_flops(shape: ModelShape, search: Search, checkpointing: bool, adapters: Adapters) -> float:
    """Returns the FLOPs of K + 1 forwards and K gradients; the blocks below the layer run once."""
    whole = flops.forward(shape, search.rows, adapters=adapters)
    ahead = flops.forward(shape, search.rows, layer=search.layer, adapters=adapters)
    back = flops.backward(shape, search.rows, Backward.activations, layer=search.layer, adapters=adapters)
    if checkpointing:
        share = (shape.layers - search.layer) / shape.layers
        back += share * flops.recompute(shape, search.rows, adapters=adapters)
    return whole + search.steps * (ahead + back)
