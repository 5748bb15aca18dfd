"""Steps for which the gradients of forget and retain rows are taken apart: combined by a rule, or at moved weights.

    g_f, g_r   gradients of forget_weight * L_forget and of retain_weight * L_retain, summed over the global batch

The engine is handed one gradient g for all trained weights, as that of `sum over weights of <weight, g>`: what it does
with a gradient (reducing over processes, clipping, its optimizer) is the same as in any other training.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from erulab.adversaries.weights import WeightAdversary, WeightSpace
from erulab.ranks import Ranks
from erulab.training.combine import Combination
from erulab.training.engine import Engine, trained_parameters
from erulab.training.objective import MicroStep, Sums, add_sums
from erulab.training.relearning import RelearnedRows
from erulab.training.unlearning_batches import MicroBatch


class SeparateGradients:
    """Takes the two gradients apart, the forget gradient where an adversary moves the weights to, and combines them."""

    def __init__(
        self,
        combination: Combination,
        adversary: WeightAdversary | None,
        ranks: Ranks,
        relearned: RelearnedRows | None = None,
    ) -> None:
        """
        Args:
            adversary: moves the weights; None: the forget gradient is taken where they are.
            relearned: the rows for an adversary that relearns.
        """
        self._combination, self._adversary, self._ranks = combination, adversary, ranks
        self._relearned = relearned

    def accumulate(self, engine: Engine, micros: Sequence[MicroBatch], micro_step: MicroStep, step: int) -> Sums:
        """Gives the engine the gradient of one optimizer step; returns the sums over its micro-batches.

        Args:
            micros: of this rank, each of forget rows or of retain rows only.
            micro_step: computes the loss of one of them.
            step: the optimizer step.
        """
        parameters = [parameter for _, parameter in trained_parameters(engine.policy)]
        forget = [micro for micro in micros if micro.forget]
        retain = [micro for micro in micros if not micro.forget]
        seen: list[Sums] = []  # of each time that the forget gradient is taken

        def forget_gradient() -> list[torch.Tensor]:
            seen.append({})
            # One forget gradient is the training's; the others are the adversary's cost.
            own = engine.policy.ledger.adversary(trains=True) if len(seen) > 1 else nullcontext()
            with own:
                return self._gradient(engine, parameters, forget, micro_step, seen[-1])

        def relearn_gradient(number: int) -> list[torch.Tensor]:
            assert self._relearned is not None
            batches = self._relearned.of_step(step, number)
            with engine.policy.ledger.adversary(trains=True):
                return self._gradient(engine, parameters, batches, self._relearned.micro_step, {})

        if self._adversary is None:
            g_forget = forget_gradient()
        else:
            space = WeightSpace(parameters, forget_gradient, relearn_gradient)
            g_forget = self._adversary.forget_gradient(space, step)
        sums = seen[0]  # an adversary takes its first gradient at the weights as they are, or as near as it comes
        if len(seen) > 1:  # the rise of L_forget where the adversary moved the weights to
            sums["adversary/gain"] = seen[-1]["forget_loss"] - seen[0]["forget_loss"]
        g_retain = self._gradient(engine, parameters, retain, micro_step, sums) if retain else None
        g = g_forget if g_retain is None else self._combination(g_forget, g_retain)
        # Divided by the processes, because engines add up the gradients of all.
        surrogate = sum((p * d.to(p.dtype)).sum() for p, d in zip(parameters, g, strict=True)) / self._ranks.world
        assert isinstance(surrogate, torch.Tensor)
        engine.backward(surrogate, last=True)
        return sums

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self._combination.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self._combination.load_state_dict(state)

    def _gradient(
        self,
        engine: Engine,
        parameters: Sequence[torch.nn.Parameter],
        micros: Sequence[Any],
        micro_step: MicroStep,
        sums: Sums,
    ) -> list[torch.Tensor]:
        """Returns the float32 gradient of each weight, over all micro-batches and ranks; adds to `sums`."""
        total = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
        for micro in micros:
            # Not through the engine: its hooks would take this for the backward of a step.
            with engine.autocast(), micro_step(engine.policy, micro) as (loss, micro_sums):
                found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
            for one, g in zip(total, found, strict=True):
                if g is not None:
                    one += g
            add_sums(sums, micro_sums)
        return [self._ranks.all_reduce_sum(one) for one in total]
