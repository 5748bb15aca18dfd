"""reference_free: the rigid reward of SimNPO. One margin for every row, no reference model.

    m = gamma,   in nats per token with simnpo and eru; the paper's gamma is beta times it

`reward.lambda_ref`, 0 here, is that of rewards/reference.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from erulab.registry import rewards
from erulab.rewards.reference import ReferenceOptions, RigidReward


@dataclass
class ReferenceFreeOptions(ReferenceOptions):
    name: str = "reference_free"
    lambda_ref: float = 0.0


@rewards.register("reference_free", ReferenceFreeOptions, paper="SimNPO, arXiv:2410.07163")
class ReferenceFreeReward(RigidReward):
    """No reference model: the rigid reward of SimNPO."""
