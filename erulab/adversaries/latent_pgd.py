"""latent_pgd: the inner player of latent adversarial training. Projected gradient descent on hidden states.

    delta = argmin over delta_0 .. delta_K of NLL(forgotten answer | h_l + delta)

    delta_0 = 0,   delta_(k+1) = Proj(delta_k - eta g/||g||) per ball,   eta = 2.5 radius / K

    g        gradient of that NLL with respect to delta_k
    Proj     into the L2 ball of the row's radius around each token's state (ball=token, the default), or around the
             states of all perturbed tokens of the row as one vector (ball=sequence)
    radius   eps_rel times the median norm of the row's prompt states, its first token left out; or eps
    K        adversary.steps

Site: the input of one block l (a quarter deep by default), on prompt tokens, or on all tokens with tokens=all. The best
delta is chosen per row, so the NLL under it is never higher than without it. A step of unlearning costs about four
times as much as without an adversary.
Source: LAT, Casper et al. 2024, arXiv:2403.05030; PGD, Madry et al. 2018, arXiv:1706.06083.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab.adversaries.balls import (
    Ball,
    descent_step,
    median_norm,
    perturbed_layer,
    perturbed_tokens,
    prompt_tokens,
    values_of_forward_rows,
)
from erulab.adversaries.base import HookablePolicy, StatelessAdversary
from erulab.adversaries.directions import at_least_float32
from erulab.adversaries.hooks import edit_states, module_at_layer
from erulab.adversaries.noise import NoiseOptions
from erulab.errors import NumericFault
from erulab.options import require_not_negative, require_positive
from erulab.registry import adversaries

if TYPE_CHECKING:
    import torch

    from erulab.tokens.batch import Batch
else:
    torch = lazy_loader.load("torch")


@dataclass
class LatentPGDOptions(NoiseOptions):
    name: str = "latent_pgd"
    steps: int = 6  # gradients per micro-batch; each costs about a forward and three quarters of a backward
    ball: Ball = Ball.token  # what one ball holds
    eps: Optional[float] = None  # radius in the unit of the states, in place of eps_rel

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("steps", self.steps)
        require_not_negative("eps", self.eps)


@adversaries.register(
    "latent_pgd",
    LatentPGDOptions,
    paper="LAT, Casper et al. 2024, arXiv:2403.05030; Sheshadri et al. 2024, arXiv:2407.15549",
)
class LatentPGD(StatelessAdversary):
    """Searches an L2 ball around each token's state for what lowers the forgotten answer's NLL most."""

    def __init__(self, options: LatentPGDOptions) -> None:
        self.options = options
        self.p = options.p
        self.seed = 0  # not used: the search starts at 0 and draws nothing

    @contextmanager
    def attach(
        self, policy: HookablePolicy, forget: Batch, perturbed_as_forget_row: torch.Tensor, step: int
    ) -> Iterator[None]:
        """Searches on the perturbed forget rows, then perturbs the forward.

        Raises:
            NumericFault: a gradient is NaN or infinite.
        """
        if self.p == 0:
            yield
            return
        layer = perturbed_layer(self.options.layer, len(policy.blocks))
        perturbed = perturbed_as_forget_row[perturbed_as_forget_row >= 0].unique()
        # A process without perturbed rows searches on one row all the same: under ZeRO-3 every forward is a collective.
        searched = perturbed if len(perturbed) else perturbed_as_forget_row.new_zeros(1)
        best = self._search(policy, layer, forget.select(searched), step)
        delta = best.new_zeros(len(forget.row_ids), *best.shape[1:]).index_copy(0, searched, best)

        def edit(states: torch.Tensor) -> torch.Tensor:
            return states + values_of_forward_rows(delta, perturbed_as_forget_row, states.shape[1]).to(states.dtype)

        with edit_states(policy, [(module_at_layer(policy, layer), edit)]):
            yield

    def _search(self, policy: HookablePolicy, layer: int, forget: Batch, step: int) -> torch.Tensor:
        """Returns (rows, length, width): for each row the one of delta_0 = 0 .. delta_K with the lowest NLL."""
        o = self.options
        tokens = perturbed_tokens(forget, o.tokens)
        clean: torch.Tensor | None = None  # h_layer without a delta: computed once, then the blocks below are skipped
        delta: torch.Tensor | None = None
        radius: torch.Tensor | None = None

        def edit(states: torch.Tensor) -> torch.Tensor:
            nonlocal clean, delta, radius
            if clean is None or delta is None:  # the first forward is the clean one, and gives the radius
                clean = states.detach()
                delta = torch.zeros_like(at_least_float32(states), requires_grad=True)
                median = median_norm(states, prompt_tokens(forget))
                radius = o.eps_rel * median if o.eps is None else torch.full_like(median, o.eps)
            return clean + delta.to(states.dtype)

        with edit_states(policy, [(module_at_layer(policy, layer), edit)]), torch.enable_grad():
            nll = policy.row_nll(forget)
            assert delta is not None and radius is not None
            best, best_nll = delta.detach(), nll.detach()
            with policy.skip_blocks_below(layer):
                for k in range(o.steps):
                    gradient = policy.state_gradient(nll.sum(), delta, layer)
                    delta = descent_step(
                        delta.detach(), gradient, radius=radius, tokens=tokens, steps=o.steps, ball=o.ball
                    ).requires_grad_()
                    if not bool(delta.isfinite().all()):
                        raise NumericFault(
                            f"latent_pgd's perturbation is not finite at step {step} for rows "
                            f"{', '.join(forget.row_ids)}; try a smaller trainer.lr or adversary.eps_rel"
                        )
                    with torch.set_grad_enabled(k < o.steps - 1):  # the last delta is only compared
                        nll = policy.row_nll(forget)
                    better = nll.detach() < best_nll
                    best_nll = torch.where(better, nll.detach(), best_nll)
                    best = torch.where(better[:, None, None], delta.detach(), best)
        return best
