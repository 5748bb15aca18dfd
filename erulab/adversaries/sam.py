"""sam: sharpness-aware forgetting (Foret et al. 2021; Fan et al. 2025). The forget loss at the worst weights nearby.

    g_f      = gradient of forget_weight * L_forget at theta, over the global batch
    epsilon  = rho * g_f / ||g_f||            (norm over all trained weights)
    step     = descent on the gradient of forget_weight * L_forget at theta + epsilon
               and of retain_weight * L_retain at theta

An attacker who fine-tunes moves the weights; a loss that is low in a ball around them is harder to undo by small moves.
The forget rows run forward and backward twice per step; the second time counts as the adversary's cost. With rho 0 the
step is the plain one.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lazy_loader

from erulab.adversaries.base import HookablePolicy, StatelessAdversary
from erulab.adversaries.weights import WeightSpace
from erulab.options import require_not_negative
from erulab.registry import adversaries

if TYPE_CHECKING:
    import torch

    from erulab.tokens.batch import Batch
else:
    torch = lazy_loader.load("torch")


@dataclass
class SAMOptions:
    name: str = "sam"
    rho: float = 0.01  # length of the move, in the norm over all trained weights

    def __post_init__(self) -> None:
        require_not_negative("rho", self.rho)

    @property
    def p(self) -> float:
        """Share of forget rows whose states are perturbed: none."""
        return 0.0


@adversaries.register("sam", SAMOptions, paper="Foret et al. 2021, arXiv:2010.01412; Fan et al. 2025, arXiv:2502.05374")
class SAM(StatelessAdversary):
    """Takes the forget gradient one normalised ascent step away, in weight space."""

    relearns = False

    def __init__(self, options: SAMOptions) -> None:
        self.options = options
        self.p = 0.0
        self.seed = 0
        self.moves = options.rho > 0
        self._norm = 0.0

    def attach(
        self, policy: HookablePolicy, forget: Batch, perturbed_as_forget_row: torch.Tensor, step: int
    ) -> AbstractContextManager[None]:
        return nullcontext()

    def forget_gradient(self, space: WeightSpace, step: int) -> list[torch.Tensor]:
        gradient = space.forget_gradient()
        self._norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradient))
        if not self._norm:
            return gradient
        with space.restored():
            with torch.no_grad():
                for p, g in zip(space.parameters, gradient, strict=True):
                    p.add_(g.to(p.dtype), alpha=self.options.rho / self._norm)
            return space.forget_gradient()

    def metrics(self) -> dict[str, float]:
        return {"forget_gradient_norm": self._norm}
