"""relearning: the adversary of TAR (Tamirisa et al. 2024). The forget loss where an attacker's fine-tuning leads to.

    theta_0  = theta
    theta_k  = theta_(k-1) - lr * update of the gradient of NLL on relearned rows at theta_(k-1),   k = 1 .. K
    g_f      = mean over k = every, 2 every, ... <= K of the gradient of forget_weight * L_forget at theta_k

The step descends g_f at theta, to first order: the dependence of theta_k on theta is left out, as in the source. The
retain gradient is taken at theta. L_forget is the method's loss on the forget rows of the step. The relearned rows are
forget rows about facts that no row of the step is about [design], drawn anew for each k by (seed, step), as many as
`trainer.global_batch`; a step whose rows are about every fact relearns on all forget rows. After the K steps the
weights are restored, bit for bit. With K = 0 the step is the plain one.

When to use it: with method=tar, to train against the fine-tuning attack itself. What it costs: K forwards and backwards
of a global batch per step, and K / every gradients of the forget loss instead of one (of all these, one gradient of the
forget loss counts as training's, the rest as the adversary's); the weights are held twice, with adamw four times.
Limit: only fine-tuning of this kind and length is seen; published relearning curves of TAR are no better than NPO's.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import lazy_loader

from erulab.adversaries.base import HookablePolicy, StatelessAdversary
from erulab.adversaries.weights import WeightSpace
from erulab.options import require, require_not_negative, require_positive
from erulab.registry import adversaries

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from erulab.tokens.batch import Batch
else:
    torch = lazy_loader.load("torch")


class InnerOptimizer(Enum):
    """How the simulated attacker updates the weights."""

    sgd = "sgd"
    adamw = "adamw"  # betas .9 and .999, no weight decay; its moments start at 0 in every step of unlearning


class AdamUpdate:
    """Updates of Adam from its first step on: m / (sqrt(v) + 1e-8), with bias-corrected moments m and v.

    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.
    """

    def __init__(self) -> None:
        self._moments: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._steps = 0

    def __call__(self, gradient: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Returns the direction in which each weight is moved by -lr."""
        if not self._moments:
            self._moments = [(torch.zeros_like(g), torch.zeros_like(g)) for g in gradient]
        self._steps += 1
        first, second = 1 - 0.9**self._steps, 1 - 0.999**self._steps
        updates = []
        for g, (m, v) in zip(gradient, self._moments, strict=True):
            m.lerp_(g, 0.1)
            v.lerp_(g.square(), 0.001)
            updates.append(m / first / ((v / second).sqrt() + 1e-8))
        return updates


@dataclass
class RelearningOptions:
    name: str = "relearning"
    steps: int = 8  # K, relearning steps per step of unlearning; 0: none
    every: int = 4  # the forget gradient is taken at every so many of them
    lr: float = 1e-5  # learning rate of relearning
    optimizer: InnerOptimizer = InnerOptimizer.adamw  # of relearning

    def __post_init__(self) -> None:
        require_not_negative("steps", self.steps)
        require_positive("every", self.every)
        fits = not self.steps or self.every <= self.steps
        require(fits, "every", f"at most steps={self.steps}", self.every)
        require_positive("lr", self.lr)

    @property
    def p(self) -> float:
        """Share of forget rows whose states are perturbed: none."""
        return 0.0


@adversaries.register("relearning", RelearningOptions, paper="TAR, Tamirisa et al. 2024, arXiv:2408.00761")
class Relearning(StatelessAdversary):
    """Takes the forget gradient along a simulated relearning of other facts."""

    relearns = True

    def __init__(self, options: RelearningOptions) -> None:
        self.options = options
        self.p = 0.0
        self.seed = 0  # not used: what is relearned is drawn by the training
        self.moves = options.steps > 0

    def attach(
        self, policy: HookablePolicy, forget: Batch, perturbed_as_forget_row: torch.Tensor, step: int
    ) -> AbstractContextManager[None]:
        return nullcontext()

    def forget_gradient(self, space: WeightSpace, step: int) -> list[torch.Tensor]:
        o = self.options
        total: list[torch.Tensor] = []
        update = AdamUpdate() if o.optimizer is InnerOptimizer.adamw else list
        with space.restored():
            for k in range(1, o.steps + 1):
                moves = update(space.relearn_gradient(k))
                with torch.no_grad():
                    for p, move in zip(space.parameters, moves, strict=True):
                        p.add_(move.to(p.dtype), alpha=-o.lr)
                if k % o.every == 0:
                    found = space.forget_gradient()
                    total = [a + b for a, b in zip(total, found, strict=True)] if total else found
        return [g / (o.steps // o.every) for g in total]
