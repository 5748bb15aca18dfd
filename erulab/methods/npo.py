"""NPO (Zhang et al. 2024): the negative half of DPO on the forget responses."""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.preference import PreferenceMethod, PreferenceOptions
from erulab.registry import methods


@dataclass
class NPOOptions(PreferenceOptions):
    name: str = "npo"
    beta: float = 0.1


@methods.register(
    "npo",
    NPOOptions,
    paper="Zhang et al. 2024, arXiv:2404.05868",
    needs="a reward (reference), retain rows",
    defaults=["override /reward@_global_.reward: reference"],
)
class NPO(PreferenceMethod):
    """Negative preference optimisation on sequence sums, against the target as reference."""
