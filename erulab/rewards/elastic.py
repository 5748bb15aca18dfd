"""elastic: the reward of ERU. A margin that rises with how far a row has been forgotten.

    m = sg[gamma + lambda_ref * x_ref + alpha * Z]          depth = x - x_ref

    Z = depth                                               z=raw
      = clip((depth - mean) / max(sd, sd0), -z_max, z_max)  z=batch: mean, sd over the depths of this global batch
                                                            z=ema:   moving averages over the steps before this one

z=ema (default) has Z = 0 in the first step; after each step, mean and mean square of its depths, over all ranks, enter
with weight 1 - decay, corrected for the empty start. sd is the population deviation.

Limits:
    alpha = lambda_ref = 0                      SimNPO's reference-free reward
    alpha = 0, lambda_ref = 1                   the rigid reward of NPO and DPO
    depth = 0 (at the start)                    any alpha equals alpha = 0, also for one row or no deviation
    z=raw, lambda_ref = 0                       x - m = (1 - alpha) x + alpha x_ref - gamma, a mix of the rigid signals
    z=raw, no pairs                             row weights of a rigid reward with beta' = (1 - alpha) beta,
                                                lambda_ref' = (lambda_ref - alpha) / (1 - alpha),
                                                gamma' = gamma / (1 - alpha)
    z=raw, alpha = 1                            static weights, gradient ascent that never saturates: refused
    pairs, z=ema, decay 0.9, scale=1            alpha-DPO (arXiv:2410.10148)

So z=raw without pairs is no new reward; z=batch and z=ema are, because they couple rows. With sd0 >= alpha the loss
falls as a row is forgotten, the rise of its margin included: its slope in x is -(1 - alpha / sd) times the weight.
The form for forget rows without pairs is ours: the source has pairs, in which the normaliser cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab.options import require, require_positive
from erulab.registry import rewards
from erulab.rewards.base import Gather
from erulab.rewards.reference import require_finite

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


class Standardization(Enum):
    """The form of Z: the depth as it is, or its z-score over the global batch or over moving averages."""

    raw = "raw"  # as it is
    batch = "batch"  # by the global batch
    ema = "ema"  # by moving averages of earlier steps


def elastic_margin(
    x_ref: torch.Tensor, z: torch.Tensor, *, gamma: float, lambda_ref: float, alpha: float
) -> torch.Tensor:
    """Returns `gamma + lambda_ref * x_ref + alpha * z`, without gradient.

    Args:
        x_ref: (rows,) the method's quantity under the reference model, nats or nats per token.
        z: (rows,) forget depth, raw (in the unit of x_ref) or standardised.
    Returns:
        (rows,) margin in the unit of x_ref.
    Source: ours, after ERU's abstract (README.md); alpha = lambda_ref = 0 is SimNPO's reference-free reward.
    """
    return (gamma + lambda_ref * x_ref + alpha * z).detach()


def standardize(
    depth: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor, *, sd0: float, z_max: float
) -> torch.Tensor:
    """Returns `clip((depth - mean) / max(deviation, sd0), -z_max, z_max)`.

    Args:
        depth: (rows,) forget depth, nats or nats per token.
        mean, deviation: scalars that it is standardised by.
    Returns:
        (rows,) z-scores without unit; finite also for one row, or where all depths are equal.
    """
    return ((depth - mean) / deviation.clamp(min=sd0)).clamp(-z_max, z_max)


@dataclass
class ElasticOptions:
    """Options of the elastic margin."""

    name: str = "elastic"
    alpha: float = 0.2  # how strongly the margin follows the forget depth of the row
    gamma: float = 0.0  # constant part of the margin, nats or nats per token
    lambda_ref: float = 0.0  # weight of the reference; 0: none, 1: the model before unlearning
    z: Standardization = Standardization.ema  # how the depth is standardised
    # weight of the past in the moving averages, per step; null: 0.9 with pairs (as alpha-DPO), 0.5 without
    decay: Optional[float] = None
    sd0: Optional[float] = None  # smallest deviation to divide by; null: alpha
    z_max: float = 3.0  # largest standardised depth

    def __post_init__(self) -> None:
        require_finite("alpha", self.alpha)
        require_finite("gamma", self.gamma)
        require_finite("lambda_ref", self.lambda_ref)
        require_positive("z_max", self.z_max)
        require_positive("sd0", self.sd0)
        if self.decay is not None:
            require(0 <= self.decay < 1, "decay", "in [0, 1)", self.decay)
        if self.z is Standardization.raw:
            # At alpha = 1 the margin follows the row and never saturates: gradient ascent, which collapses.
            require(self.alpha < 1, "alpha", "< 1 with z=raw", self.alpha)
        elif self.sd0 is not None:
            allowed = f">= alpha ({self.alpha}), or the loss falls as the row is learned"
            require(self.sd0 >= self.alpha, "sd0", allowed, self.sd0)


@rewards.register(
    "elastic", ElasticOptions, paper="ERU, NeurIPS 2025; alpha-DPO, arXiv:2410.10148", needs="reference log-probs"
)
class ElasticReward:
    """ERU's elastic reward: the margin grows with how far the row is already forgotten."""

    needs_reference = True

    def __init__(self, options: ElasticOptions) -> None:
        self.options = options
        self.needs_whole_batch = options.z is Standardization.batch
        self.decay = 0.5 if options.decay is None else options.decay
        self.sd0 = options.sd0 if options.sd0 is not None else max(abs(options.alpha), 1e-6)
        # Moving sums over earlier steps; dividing by the weight corrects for the empty start.
        self._weight = self._mean = self._square = 0.0
        # This step's count, sum and sum of squares. Plain numbers: the plan of a run builds rewards without torch.
        self._pending = (0.0, 0.0, 0.0)

    def margin(self, x_ref: torch.Tensor, depth: torch.Tensor, gather: Gather) -> torch.Tensor:
        o = self.options
        return elastic_margin(x_ref, self._z(depth, gather), gamma=o.gamma, lambda_ref=o.lambda_ref, alpha=o.alpha)

    def end_step(self, all_reduce_sum: Gather) -> None:
        """Adds this step's depths, of all ranks, to the moving averages."""
        count, total, square = all_reduce_sum(torch.tensor(self._pending, dtype=torch.float64)).tolist()
        self._pending = (0.0, 0.0, 0.0)
        if count:
            d = self.decay
            self._weight = d * self._weight + (1 - d)
            self._mean = d * self._mean + (1 - d) * total / count
            self._square = d * self._square + (1 - d) * square / count

    def metrics(self) -> dict[str, float]:
        if self._weight == 0:
            return {}
        mean, deviation = self._statistics()
        return {"depth_mean": mean, "depth_sd": deviation}

    def state_dict(self) -> dict[str, float]:
        return {"weight": self._weight, "mean": self._mean, "square": self._square}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._weight, self._mean, self._square = state["weight"], state["mean"], state["square"]

    def _z(self, depth: torch.Tensor, gather: Gather) -> torch.Tensor:
        o = self.options
        if o.z is Standardization.raw:
            return depth
        if o.z is Standardization.batch:
            every = gather(depth.detach())
            return standardize(depth, every.mean(), every.std(correction=0), sd0=self.sd0, z_max=o.z_max)
        wide = depth.detach().double().cpu()
        count, total, square = self._pending
        self._pending = (count + len(wide), total + float(wide.sum()), square + float((wide**2).sum()))
        if self._weight == 0:  # first step: no earlier statistics
            return torch.zeros_like(depth)
        mean, deviation = self._statistics()
        return standardize(depth, depth.new_tensor(mean), depth.new_tensor(deviation), sd0=self.sd0, z_max=o.z_max)

    def _statistics(self) -> tuple[float, float]:
        mean = self._mean / self._weight
        return mean, max(self._square / self._weight - mean**2, 0.0) ** 0.5
