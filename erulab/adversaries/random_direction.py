"""random_direction: ablation of random directions, the control that rfa must beat.

    h <- h - r (r . h)     with r uniform on the unit sphere, one per site, drawn by (seed, layer) once per run

Sites, tokens and the share of rows are those of rfa; no step in the first `warmup` of the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import lazy_loader

from erulab import draws
from erulab.adversaries.ablation import Ablation, AblationOptions, ablated_layers
from erulab.adversaries.base import DrawPrompts, HookablePolicy
from erulab.adversaries.directions import last_prompt_states, unit
from erulab.registry import adversaries

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


def random_unit(width: int, *parts: object) -> torch.Tensor:
    """Draws (width,) float64, uniform on the unit sphere, as a function of `parts`."""
    return unit(torch.randn(width, generator=draws.generator(*parts), dtype=torch.float64))


@dataclass
class RandomDirectionOptions(AblationOptions):
    name: str = "random_direction"


@adversaries.register("random_direction", RandomDirectionOptions, paper="control for rfa")
class RandomDirection(Ablation):
    """As rfa, with one random unit direction per site, drawn once per run."""

    def prepare(self, step: int, total_steps: int, policy: HookablePolicy, draw: DrawPrompts) -> None:
        self._active = step >= self.options.warmup * total_steps
        if self._directions is None:
            layers = ablated_layers(self.options, len(policy.blocks))
            like = last_prompt_states(policy, draw("forget", 1, 0), layers[:1])
            directions = [random_unit(like.shape[-1], self.seed, "direction", layer) for layer in layers]
            self._directions = torch.stack(directions).to(like)

    def metrics(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Does nothing: directions are a function of the seed."""
