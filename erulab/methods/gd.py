"""Gradient difference (Liu et al. 2022; TOFU): gradient ascent with retain NLL."""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.base import MethodOptions, Retain
from erulab.methods.ga import GradientAscent
from erulab.registry import methods


@dataclass
class GDOptions(MethodOptions):
    name: str = "gd"
    retain: Retain = Retain.nll


@methods.register(
    "gd", GDOptions, paper="Liu et al. 2022, arXiv:2203.12817; TOFU, arXiv:2401.06121", needs="retain rows"
)
class GradientDifference(GradientAscent):
    """Gradient ascent on the forget responses, with retain NLL."""
