"""noise: Gaussian noise on hidden states, the control that latent_pgd must beat.

    delta = radius * n/||n|| per token,   n ~ N(0, I) drawn by (seed, step, row id)

    radius   eps_rel times the median norm of the row's prompt states, its first token left out

There is no objective. Site: that of latent_pgd, the input of one block (a quarter deep by default), on prompt tokens,
or on all tokens with tokens=all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab import draws
from erulab.adversaries.balls import (
    Tokens,
    median_norm,
    perturbed_layer,
    perturbed_tokens,
    prompt_tokens,
    values_of_forward_rows,
)
from erulab.adversaries.base import HookablePolicy, StatelessAdversary
from erulab.adversaries.directions import at_least_float32, unit
from erulab.adversaries.hooks import edit_states, module_at_layer
from erulab.options import require_fraction, require_not_negative
from erulab.registry import adversaries

if TYPE_CHECKING:
    import torch

    from erulab.tokens.batch import Batch
else:
    torch = lazy_loader.load("torch")


def unit_noise(batch: Batch, tokens: torch.Tensor, width: int, seed: int, step: int) -> torch.Tensor:
    """Draws Gaussian directions of length 1. A row's noise is a function of (seed, step, row id) alone.

    Args:
        tokens: (rows, length) bool, on the CPU: the tokens that get noise.
        width: of the hidden states.
    Returns:
        (rows, length, width) float32, zero where `tokens` is false.
    """
    noise = torch.zeros(*tokens.shape, width)
    for i, row_id in enumerate(batch.row_ids):
        drawn = torch.randn(int(tokens[i].sum()), width, generator=draws.generator(seed, "noise", step, row_id))
        noise[i, tokens[i]] = unit(drawn)
    return noise


@dataclass
class NoiseOptions:
    """Options of noise; latent_pgd has them too."""

    name: str = "noise"
    p: float = 1.0  # share of forget rows that are perturbed
    eps_rel: float = 0.1  # radius, relative to the median norm of the row's prompt states
    layer: Optional[int] = None  # block whose input is perturbed; null: a quarter of the depth
    tokens: Tokens = Tokens.prompt  # which tokens are perturbed

    def __post_init__(self) -> None:
        require_fraction("p", self.p)
        require_not_negative("eps_rel", self.eps_rel)
        require_not_negative("layer", self.layer)


@adversaries.register("noise", NoiseOptions, paper="control for latent_pgd")
class Noise(StatelessAdversary):
    """Gaussian noise of the size of latent_pgd's ball, at the same layer and tokens."""

    def __init__(self, options: NoiseOptions) -> None:
        self.options = options
        self.p = options.p
        self.seed = 0

    @contextmanager
    def attach(
        self, policy: HookablePolicy, forget: Batch, perturbed_as_forget_row: torch.Tensor, step: int
    ) -> Iterator[None]:
        if self.p == 0:
            yield
            return
        tokens, prompt = perturbed_tokens(forget, self.options.tokens).cpu(), prompt_tokens(forget)
        drawn: list[torch.Tensor] = []

        def edit(states: torch.Tensor) -> torch.Tensor:
            if not drawn:  # the width is known only here; a recomputed forward gets the same noise
                noise = unit_noise(forget, tokens, states.shape[-1], self.seed, step)
                drawn.append(noise.to(states.device, at_least_float32(states).dtype))
            length = states.shape[1]
            radius = self.options.eps_rel * median_norm(
                states, values_of_forward_rows(prompt, perturbed_as_forget_row, length)
            )
            return states + (
                values_of_forward_rows(drawn[0], perturbed_as_forget_row, length) * radius[:, None, None]
            ).to(states.dtype)

        module = module_at_layer(policy, perturbed_layer(self.options.layer, len(policy.blocks)))
        with edit_states(policy, [(module, edit)]):
            yield
