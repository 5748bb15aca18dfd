"""kl: gradient ascent with a KL term (TOFU). Stays close to the model before unlearning on retain rows.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = - sum over forget rows of s / sum over forget rows of T
    L_retain =   sum over tokens t of retain responses of KL(p_ref(. | x, y_<t) || p(. | x, y_<t)) / their number
    s        = -sum_t log p(y_t | x, y_<t)   NLL of a response in nats, over its T supervised tokens
    p_ref    the model before unlearning, kept frozen (with LoRA: the model without its adapters)

KL is over the whole vocabulary, at supervised positions only; its value and its gradient are 0 at the start, where
p = p_ref. L_forget has no lower bound (see ga.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from erulab.methods.base import MethodOptions
from erulab.methods.ga import GradientAscent
from erulab.methods.retain import Retain
from erulab.registry import methods


@dataclass
class KLOptions(MethodOptions):
    name: str = "kl"
    retain: Retain = Retain.kl


@methods.register("kl", KLOptions, paper="TOFU, arXiv:2401.06121", needs="retain rows, a frozen copy of the target")
class AscentWithKL(GradientAscent):
    """Gradient ascent on the forget responses, with a KL term to the target on retain rows."""
