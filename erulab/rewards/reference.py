"""The rigid rewards: reference-based (NPO, DPO) and the form both share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.options import require
from erulab.registry import rewards
from erulab.rewards.base import Gather

if TYPE_CHECKING:
    import torch


def rigid_margin(x_ref: torch.Tensor, *, gamma: float, lambda_ref: float) -> torch.Tensor:
    """`gamma + lambda_ref * x_ref`, without gradient.

    Args:
        x_ref: (rows,) the method's quantity under the reference model, nats.
    Returns:
        (rows,) margin. lambda_ref 1 is NPO/DPO, lambda_ref 0 is SimNPO (METHODS.md section 4).
    """
    return (gamma + lambda_ref * x_ref).detach()


def finite(field_name: str, value: float) -> None:
    """Raises ValueError for an infinite value or NaN."""
    require(abs(value) < float("inf"), field_name, "finite", value)


@dataclass
class ReferenceOptions:
    name: str = "reference"
    gamma: float = 0.0
    lambda_ref: float = 1.0

    def __post_init__(self) -> None:
        finite("gamma", self.gamma)
        finite("lambda_ref", self.lambda_ref)


@rewards.register("reference", ReferenceOptions, paper="NPO, arXiv:2404.05868", needs="reference log-probs")
class RigidReward:
    """The model before unlearning as reference: NPO's and DPO's rigid reward."""

    needs_whole_batch = False

    def __init__(self, options: ReferenceOptions) -> None:
        self.options = options
        self.needs_reference = options.lambda_ref != 0

    def margin(self, x_ref: torch.Tensor, depth: torch.Tensor, gather: Gather) -> torch.Tensor:
        return rigid_margin(x_ref, gamma=self.options.gamma, lambda_ref=self.options.lambda_ref)

    def end_step(self, all_reduce_sum: Gather) -> None:
        """A rigid margin has no statistics."""

    def metrics(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Nothing to restore."""
