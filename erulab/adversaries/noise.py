"""Gaussian noise on hidden states: the control that latent_pgd must beat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab import draws
from erulab.adversaries.balls import Tokens, median_norm, of_rows, perturbed_layer, perturbed_tokens, prompt_tokens
from erulab.adversaries.base import HookablePolicy, Memoryless
from erulab.adversaries.directions import unit, wide
from erulab.adversaries.hooks import edited, site
from erulab.options import fraction, not_negative
from erulab.registry import adversaries

if TYPE_CHECKING:
    import torch

    from erulab.tokens.batch import Batch
else:
    torch = lazy_loader.load("torch")


def unit_noise(batch: Batch, tokens: torch.Tensor, width: int, seed: int, step: int) -> torch.Tensor:
    """(rows, length, width) float32 Gaussian directions of length 1 on `tokens`, zero elsewhere.

    A row's noise is a function of (seed, step, row id), whatever rows stand beside it.

    Args:
        tokens: (rows, length) bool, on the CPU.
    """
    noise = torch.zeros(*tokens.shape, width)
    for i, row_id in enumerate(batch.row_ids):
        drawn = torch.randn(int(tokens[i].sum()), width, generator=draws.generator(seed, "noise", step, row_id))
        noise[i, tokens[i]] = unit(drawn)
    return noise


@dataclass
class NoiseOptions:
    """`eps_rel`: the noise's norm over the median norm of the row's prompt tokens; `layer` null: a quarter deep."""

    name: str = "noise"
    p: float = 1.0
    eps_rel: float = 0.1
    layer: Optional[int] = None
    tokens: Tokens = Tokens.prompt

    def __post_init__(self) -> None:
        fraction("p", self.p)
        not_negative("eps_rel", self.eps_rel)
        not_negative("layer", self.layer)


@adversaries.register("noise", NoiseOptions, paper="control for latent_pgd")
class Noise(Memoryless):
    """Gaussian noise of latent_pgd's size, at its layer and tokens."""

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
            if not drawn:  # the width is known here; a recomputed forward sees the same noise
                noise = unit_noise(forget, tokens, states.shape[-1], self.seed, step)
                drawn.append(noise.to(states.device, wide(states).dtype))
            length = states.shape[1]
            radius = self.options.eps_rel * median_norm(states, of_rows(prompt, perturbed_as_forget_row, length))
            return states + (of_rows(drawn[0], perturbed_as_forget_row, length) * radius[:, None, None]).to(
                states.dtype
            )

        module = site(policy, perturbed_layer(self.options.layer, len(policy.blocks)))
        with edited(policy, [(module, edit)]):
            yield
