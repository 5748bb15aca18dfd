"""Gradient ascent with a KL retain term (TOFU): stay close to the model before unlearning on retain rows."""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.base import MethodOptions, Retain
from erulab.methods.ga import GradientAscent
from erulab.registry import methods


@dataclass
class KLOptions(MethodOptions):
    name: str = "kl"
    retain: Retain = Retain.kl


@methods.register("kl", KLOptions, paper="TOFU, arXiv:2401.06121", needs="retain rows, a frozen copy of the target")
class AscentWithKL(GradientAscent):
    """Gradient ascent on the forget responses, with a KL term to the target on retain rows."""
