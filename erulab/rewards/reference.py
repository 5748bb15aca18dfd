"""reference: the rigid reward of NPO and DPO, with the model before unlearning as reference.

    m = sg[gamma + lambda_ref * x_ref],   lambda_ref 1 and gamma 0 by default

x_ref is s_ref, l_ref or u_ref, as the method has it (methods/base.py). With lambda_ref = 0 it is reference_free, and no
reference value is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.options import require
from erulab.registry import rewards
from erulab.rewards.base import Gather

if TYPE_CHECKING:
    import torch


def rigid_margin(x_ref: torch.Tensor, *, gamma: float, lambda_ref: float) -> torch.Tensor:
    """Returns `gamma + lambda_ref * x_ref`, without gradient.

    Args:
        x_ref: (rows,) the method's quantity under the reference model, nats or nats per token.
    Returns:
        (rows,) margin in the unit of x_ref. lambda_ref 1 is NPO and DPO, lambda_ref 0 is SimNPO.
    Source: NPO, arXiv:2404.05868, eq. 3; SimNPO, arXiv:2410.07163, eq. 4.
    """
    return (gamma + lambda_ref * x_ref).detach()


def require_finite(field_name: str, value: float) -> None:
    """Raises ValueError for an infinite value or NaN."""
    require(abs(value) < float("inf"), field_name, "finite", value)


@dataclass
class ReferenceOptions:
    name: str = "reference"
    gamma: float = 0.0  # constant part of the margin, nats or nats per token
    lambda_ref: float = 1.0  # weight of the reference; 1: the model before unlearning, 0: none

    def __post_init__(self) -> None:
        require_finite("gamma", self.gamma)
        require_finite("lambda_ref", self.lambda_ref)


@rewards.register("reference", ReferenceOptions, paper="NPO, arXiv:2404.05868", needs="reference log-probs")
class RigidReward:
    """The model before unlearning as reference: the rigid reward of NPO and DPO."""

    needs_whole_batch = False

    def __init__(self, options: ReferenceOptions) -> None:
        self.options = options
        self.needs_reference = options.lambda_ref != 0

    def margin(self, x_ref: torch.Tensor, depth: torch.Tensor, gather: Gather) -> torch.Tensor:
        return rigid_margin(x_ref, gamma=self.options.gamma, lambda_ref=self.options.lambda_ref)

    def end_step(self, all_reduce_sum: Gather) -> None:
        """Does nothing: a rigid margin has no statistics."""

    def metrics(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Does nothing: there is no state."""
