"""SimNPO (Fan et al. 2024): NPO without a reference, on per-token means."""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.preference import PreferenceMethod, PreferenceOptions
from erulab.registry import methods


@dataclass
class SimNPOOptions(PreferenceOptions):
    """The paper's gamma is beta times `reward.gamma`, which is in nats per token."""

    name: str = "simnpo"
    beta: float = 2.5
    length_normalize: bool = True


@methods.register(
    "simnpo",
    SimNPOOptions,
    paper="Fan et al. 2024, arXiv:2410.07163",
    needs="a reward (reference_free), retain rows",
    defaults=["override /reward@_global_.reward: reference_free"],
)
class SimNPO(PreferenceMethod):
    """Reference-free, length-normalised negative preference optimisation."""
