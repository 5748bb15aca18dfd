"""DPO for unlearning (TOFU, Zhang et al. 2024): a refusal is preferred to the forgotten answer."""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.base import Pairs
from erulab.methods.preference import PreferenceMethod, PreferenceOptions
from erulab.options import require
from erulab.registry import methods


@dataclass
class DPOOptions(PreferenceOptions):
    name: str = "dpo"
    beta: float = 0.1
    pairs: Pairs = Pairs.refusal

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = "refusal, alternative or fabricated (without a pair dpo is npo)"
        require(self.pairs is not Pairs.none, "pairs", allowed, "none")


@methods.register(
    "dpo",
    DPOOptions,
    paper="Rafailov et al. 2023, arXiv:2305.18290; TOFU, arXiv:2401.06121",
    needs="a reward (reference), refusals, retain rows",
    defaults=["override /reward@_global_.reward: reference"],
)
class DPO(PreferenceMethod):
    """Direct preference optimisation of a refusal over the forget response, on sequence sums."""
