"""ERU (Elastic Robust Unlearning, NeurIPS 2025), re-implemented: elastic reward and latent adversarial training.

What is published of ERU is its abstract and one figure; layers, strengths and the elastic margin's statistics are
ours (METHODS.md sections 0, 4 and 5), and every one of them is an option.
"""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.preference import PreferenceMethod, PreferenceOptions
from erulab.registry import methods


@dataclass
class ERUOptions(PreferenceOptions):
    name: str = "eru"
    beta: float = 2.5
    length_normalize: bool = True


@methods.register(
    "eru",
    ERUOptions,
    paper="ERU, NeurIPS 2025 (a documented re-implementation)",
    needs="a reward (elastic), an adversary (rfa), retain rows",
    defaults=["override /reward@_global_.reward: elastic", "override /adversary@_global_.adversary: rfa"],
)
class ERU(PreferenceMethod):
    """Max-min unlearning: an elastic reward on per-token means, against a latent adversary."""
