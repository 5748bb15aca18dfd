"""rfa: refusal feature ablation as an adversary (ReFAT). Removes the direction that marks forget prompts.

    h_l <- h_l - r_l (r_l . h_l - c)     on all prompt and response tokens of the perturbed rows

    r_l      = d_l / ||d_l||
    d_l      = mean h_l(forget prompts) - mean h_l(retain prompts)    direction=forget_minus_retain (default)
             = mean h_l(forget prompts) - mean h_l,target(the same)   direction=policy_minus_target
    c        = 0 (fill=zero, default), or mean r_l . h_l(retain prompts) (fill=retain_mean)

The means are over n prompts per side, at the last prompt token, under the current policy without hooks, and are taken
anew every `every` steps. It is one fixed intervention, no maximum over perturbations.
Sites: inputs of the blocks from `layers_from` of the depth on and of the final norm, each with its own direction; or
every write to the residual stream with one direction (sites=all_writes). `warmup`: share of the steps, from the first,
without ablation.
Source: ReFAT, Yu et al. 2024, arXiv:2409.20089; Arditi et al. 2024, arXiv:2406.11717.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import lazy_loader

from erulab import draws
from erulab.adversaries.ablation import Ablation, AblationOptions, Sites, ablated_layers
from erulab.adversaries.base import DrawPrompts, HookablePolicy
from erulab.adversaries.directions import difference_of_means, direction_ratio, last_prompt_states, unit
from erulab.options import require, require_positive
from erulab.registry import adversaries

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


class AblationFill(Enum):
    """The coordinate along the direction after the ablation."""

    zero = "zero"
    retain_mean = "retain_mean"  # mean of the retain prompts


class Direction(Enum):
    """The two sets of states, at the last prompt token, whose means differ by the direction."""

    forget_minus_retain = "forget_minus_retain"  # prompts drawn anew, current model
    policy_minus_target = "policy_minus_target"  # the same forget prompts now and before unlearning


@dataclass
class RFAOptions(AblationOptions):
    """Defaults follow ReFAT. Where forget and retain prompts differ by author alone, watch `direction_ratio`."""

    name: str = "rfa"
    n: int = 32  # prompts per side
    every: int = 4  # optimizer steps between two estimates
    fill: AblationFill = AblationFill.zero  # coordinate along the direction after the ablation
    direction: Direction = Direction.forget_minus_retain  # the difference of means that is the direction

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("n", self.n)
        require_positive("every", self.every)
        if self.fill is AblationFill.retain_mean:
            # all_writes would add the mean once per write; the other direction draws no retain prompts.
            possible = self.sites is Sites.block_inputs and self.direction is Direction.forget_minus_retain
            require(possible, "fill", "zero unless sites=block_inputs and direction=forget_minus_retain", "retain_mean")


@adversaries.register(
    "rfa",
    RFAOptions,
    paper="ReFAT, Yu et al. 2024, arXiv:2409.20089; Arditi et al. 2024, arXiv:2406.11717",
    needs="forget and retain prompts",
)
class RFA(Ablation):
    """Refusal feature ablation: projects out of the states the direction that marks forget prompts."""

    options: RFAOptions

    def __init__(self, options: RFAOptions) -> None:
        super().__init__(options)
        self._target: torch.Tensor | None = None  # (n, sites, width) of the model before unlearning
        self._ratio: float | None = None

    def prepare(self, step: int, total_steps: int, policy: HookablePolicy, draw: DrawPrompts) -> None:
        o = self.options
        layers = ablated_layers(o, len(policy.blocks))
        if o.direction is Direction.policy_minus_target and self._target is None:
            # Step 0 comes before the first update: the policy still is the target.
            self._target = last_prompt_states(policy, draw("forget", o.n, 0), layers)
        self._active = step >= o.warmup * total_steps
        if not self._active or (self._directions is not None and step % o.every):
            return
        if o.direction is Direction.policy_minus_target:
            assert self._target is not None
            first = last_prompt_states(policy, draw("forget", o.n, 0), layers)
            second = self._target.to(first)
        else:
            first = last_prompt_states(policy, draw("forget", o.n, step), layers)
            second = last_prompt_states(policy, draw("retain", o.n, step), layers)
        states = torch.cat([first, second])
        self._directions = unit(difference_of_means(states, len(first)))
        if o.fill is AblationFill.retain_mean:
            self._fill = (second.mean(0) * self._directions).sum(-1)
        self._ratio = direction_ratio(states, len(first), draws.permutation(len(states), self.seed, "halves", step))

    def metrics(self) -> dict[str, float]:
        """Returns `direction_ratio`: norm of the difference over that of label-shuffled halves of the same states."""
        return {} if self._ratio is None or not self._active else {"direction_ratio": self._ratio}

    def state_dict(self) -> dict[str, torch.Tensor]:
        ratio = None if self._ratio is None else torch.tensor(self._ratio, dtype=torch.float64)
        kept = {"directions": self._directions, "fill": self._fill, "target": self._target, "ratio": ratio}
        return {name: value.cpu() for name, value in kept.items() if value is not None}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self._directions, self._fill, self._target = state.get("directions"), state.get("fill"), state.get("target")
        self._ratio = float(state["ratio"]) if "ratio" in state else None
