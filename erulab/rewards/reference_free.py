"""The reference-free rigid reward of SimNPO: one margin for every row."""

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
    """No reference model: SimNPO's rigid reward."""
