"""Refusal feature ablation as an adversary (ReFAT): the direction that marks forget prompts is taken away."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import lazy_loader

from erulab import draws
from erulab.adversaries.ablation import Ablation, AblationOptions, Sites, ablated_layers
from erulab.adversaries.base import Draw, HookablePolicy
from erulab.adversaries.directions import difference_of_means, direction_ratio, last_prompt_states, unit
from erulab.options import positive, require
from erulab.registry import adversaries

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


class Fill(Enum):
    """What stands along the direction afterwards."""

    zero = "zero"
    retain_mean = "retain_mean"  # the retain prompts' mean


class Direction(Enum):
    """Which two sets of states, at the last prompt token, the direction is the difference of."""

    forget_minus_retain = "forget_minus_retain"  # prompts drawn anew, current model (ReFAT)
    policy_minus_target = "policy_minus_target"  # the same forget prompts now and before unlearning


@dataclass
class RFAOptions(AblationOptions):
    """Defaults follow ReFAT; where forget and retain prompts differ by author alone, look at `direction_ratio`."""

    name: str = "rfa"
    n: int = 32  # prompts a side
    every: int = 4  # optimizer steps between two estimates
    fill: Fill = Fill.zero
    direction: Direction = Direction.forget_minus_retain

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("n", self.n)
        positive("every", self.every)
        if self.fill is Fill.retain_mean:
            # All writes together would add the mean once a write; the other direction draws no retain prompts.
            plain = self.sites is Sites.block_inputs and self.direction is Direction.forget_minus_retain
            require(plain, "fill", "zero unless sites=block_inputs and direction=forget_minus_retain", "retain_mean")


@adversaries.register(
    "rfa",
    RFAOptions,
    paper="ReFAT, Yu et al. 2024, arXiv:2409.20089; Arditi et al. 2024, arXiv:2406.11717",
    needs="forget and retain prompts",
)
class RFA(Ablation):
    """Refusal feature ablation: what the model tells forget prompts by is projected out of its states."""

    options: RFAOptions

    def __init__(self, options: RFAOptions) -> None:
        super().__init__(options)
        self._target: torch.Tensor | None = None  # (n, sites, width) of the model before unlearning
        self._ratio: float | None = None

    def prepare(self, step: int, total_steps: int, policy: HookablePolicy, draw: Draw) -> None:
        o = self.options
        layers = ablated_layers(o, len(policy.blocks))
        if o.direction is Direction.policy_minus_target and self._target is None:
            # The first step comes before the first update: the policy still is the target.
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
        if o.fill is Fill.retain_mean:
            self._fill = (second.mean(0) * self._directions).sum(-1)
        self._ratio = direction_ratio(states, len(first), draws.permutation(len(states), self.seed, "halves", step))

    def metrics(self) -> dict[str, float]:
        """`direction_ratio`: the direction's norm over that of label-shuffled halves of the same states."""
        return {} if self._ratio is None or not self._active else {"direction_ratio": self._ratio}

    def state_dict(self) -> dict[str, torch.Tensor]:
        ratio = None if self._ratio is None else torch.tensor(self._ratio, dtype=torch.float64)
        kept = {"directions": self._directions, "fill": self._fill, "target": self._target, "ratio": ratio}
        return {name: value.cpu() for name, value in kept.items() if value is not None}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self._directions, self._fill, self._target = state.get("directions"), state.get("fill"), state.get("target")
        self._ratio = float(state["ratio"]) if "ratio" in state else None
