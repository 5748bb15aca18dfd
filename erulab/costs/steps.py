"""FLOPs of one optimizer step of unlearning or fine-tuning, over all processes."""

from __future__ import annotations

from dataclasses import dataclass, field

from erulab.costs import flops
from erulab.costs.backward import Gradients, state_backward
from erulab.costs.flops import TokenCounts
from erulab.costs.passes import Pass, pass_flops
from erulab.costs.shapes import ModelShape


@dataclass(frozen=True)
class Search:
    """The inner loop of latent_pgd in one optimizer step."""

    rows: TokenCounts
    steps: int  # gradients with respect to the input of block `layer`
    layer: int


@dataclass(frozen=True)
class Step:
    """The work of one optimizer step, as means over the steps of a training."""

    passes: tuple[Pass, ...]  # of forget rows, their paired answers and retain rows: forward and backward
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
    reference: float  # the frozen model before unlearning
    adversary: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.recompute + self.reference + self.adversary


def step_flops(shape: ModelShape, step: Step, gradients: Gradients) -> StepFlops:
    """Returns the FLOPs of a step, without the reference table of a reward, which is made once before the first step.

    Args:
        step: its work.
        gradients: the weights that are trained.
    """
    adapters = gradients.adapters
    training = [pass_flops(shape, one, gradients) for one in step.passes if not one.of_adversary]
    adversary = flops.forward(shape, step.prompts, adapters=adapters)
    adversary += 2 * flops.forward(shape, step.measured, adapters=adapters)
    adversary += sum(pass_flops(shape, one, gradients).total for one in step.passes if one.of_adversary)
    for search in (step.search, step.measured_search):
        adversary += _search_flops(shape, search, gradients) if search is not None else 0.0
    return StepFlops(
        forward=sum(one.forward for one in training),
        backward=sum(one.backward for one in training),
        recompute=sum(one.recompute for one in training),
        reference=sum(one.reference for one in training),
        adversary=adversary,
    )


def _search_flops(shape: ModelShape, search: Search, gradients: Gradients) -> float:
    """Returns the FLOPs of K + 1 forwards and K gradients; the blocks below the layer run once."""
    rows, layer, adapters = search.rows, search.layer, gradients.adapters
    whole = flops.forward(shape, rows, adapters=adapters)
    ahead = flops.forward(shape, rows, layer=layer, adapters=adapters)
    back = state_backward(shape, rows, layer, adapters=adapters, checkpointing=gradients.checkpointing)
    return whole + search.steps * (ahead + back)
