"""gd: gradient difference (Liu et al. 2022; TOFU). Gradient ascent on forget rows, descent on retain rows.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = - sum over forget rows of s / sum over forget rows of T
    L_retain =   sum over retain rows of s / sum over retain rows of T
    s        = -sum_t log p(y_t | x, y_<t)   NLL of a response in nats, over its T supervised tokens

Each term is a mean over its own tokens. With retain_weight 0 this is ga. L_forget has no lower bound (see ga.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.base import MethodOptions
from erulab.methods.ga import GradientAscent
from erulab.methods.retain import Retain
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
