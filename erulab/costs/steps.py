"""FLOPs of one optimizer step of unlearning or fine-tuning, over all processes, by what the step runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from erulab.costs import flops
from erulab.costs.flops import Backward, Rows
from erulab.costs.shapes import NO_ADAPTERS, Adapters, ModelShape


@dataclass(frozen=True)
class Search:
    """latent_pgd: on `rows` a step, `steps` gradients with respect to the input of block `layer`."""

    rows: Rows
    steps: int
    layer: int


@dataclass(frozen=True)
class Step:
    """What one optimizer step runs, in mean rows a step."""

    trained: Rows  # forget rows, their paired answers and retain rows: forward and backward
    kl: Rows = field(default_factory=Rows)  # retain rows that a frozen copy reads too, and whose KL takes both heads
    prompts: Rows = field(default_factory=Rows)  # prompts whose states give rfa its directions: no head, no gradient
    search: Search | None = None
    measured: Rows = field(default_factory=Rows)  # forget rows that the adversary's gain is measured on, twice
    measured_search: Search | None = None  # latent_pgd searches there too


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of a step over all processes. `reference` is the frozen copy of retain kl."""

    forward: float
    backward: float
    recompute: float
    reference: float
    adversary: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.recompute + self.reference + self.adversary


def step_flops(
    shape: ModelShape, step: Step, *, checkpointing: bool = False, adapters: Adapters = NO_ADAPTERS
) -> StepFlops:
    """What a step costs. The reference table of a reward costs nothing here: it is made once, before the first step."""
    kind = Backward.lora if adapters.rank else Backward.full
    # Where KL is taken, the policy's head runs a second time at the same positions, forward and backward.
    head = Rows(supervised=step.kl.supervised)
    again = flops.forward(shape, head)
    adversary = flops.forward(shape, step.prompts, adapters=adapters)
    adversary += 2 * flops.forward(shape, step.measured, adapters=adapters)
    for search in (step.search, step.measured_search):
        adversary += _search(shape, search, checkpointing, adapters) if search is not None else 0.0
    return StepFlops(
        forward=flops.forward(shape, step.trained, adapters=adapters) + again,
        backward=flops.backward(shape, step.trained, kind, adapters=adapters, checkpointing=checkpointing)
        + (1 if adapters.rank else 2) * again,
        recompute=flops.recompute(shape, step.trained, adapters=adapters) if checkpointing else 0.0,
        reference=flops.forward(shape, step.kl),
        adversary=adversary,
    )


def _search(shape: ModelShape, search: Search, checkpointing: bool, adapters: Adapters) -> float:
    """K + 1 forwards, the last of them only to compare, and K gradients. Blocks below the layer run once."""
    whole = flops.forward(shape, search.rows, adapters=adapters)
    ahead = flops.forward(shape, search.rows, layer=search.layer, adapters=adapters)
    back = flops.backward(shape, search.rows, Backward.activations, layer=search.layer, adapters=adapters)
    if checkpointing:
        share = (shape.layers - search.layer) / shape.layers
        back += share * flops.recompute(shape, search.rows, adapters=adapters)
    return whole + search.steps * (ahead + back)
