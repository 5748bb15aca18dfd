"""satimp: gradient ascent weighted by saturation and importance (Yang et al. 2025).

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = - sum over forget tokens t of sg[p_t^beta1 (1 - p_t)^beta2] NLL_t / sum over forget rows of T
    L_retain =   sum over retain rows of s / sum over retain rows of T
    NLL_t    = -log p_t,   p_t = p(y_t | x, y_<t)     of one supervised token, nats
    s        = sum_t NLL_t                            of a response, over its T supervised tokens

The weight is largest at p_t = beta1 / (beta1 + beta2): tokens that are forgotten (p_t near 0) and tokens that any model
would say (p_t near 1) are left alone. beta2 0 is wga, both 0 is gd. Use it as wga, where the forgotten facts are few
words in long answers. A step costs what a step of gd costs. L_forget rises again once tokens are forgotten: read
method/nll instead.

Published: beta1 5, beta2 1, learning rate 1e-5 (Llama-2-7B). open-unlearning's YAML has forget weight 0.1 and retain
weight 1, its page on the method the other way round, 1 and 0.1, for extraction strength; the first is the default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.methods.base import MethodOptions
from erulab.methods.seen import Seen
from erulab.methods.token_method import TokenMethod
from erulab.methods.wga import weighted_ascent_loss
from erulab.options import require_not_negative
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


@dataclass
class SatImpOptions(MethodOptions):
    name: str = "satimp"
    forget_weight: float = 0.1  # factor of the loss on forget rows
    beta1: float = 5.0  # power of the token's probability p in its weight
    beta2: float = 1.0  # power of 1 - p in its weight

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative("beta1", self.beta1)
        require_not_negative("beta2", self.beta2)


@methods.register("satimp", SatImpOptions, paper="Yang et al. 2025, arXiv:2505.11953", needs="retain rows")
class SatImp(TokenMethod):
    """Gradient ascent on the forget responses, on tokens neither forgotten nor certain, with retain NLL."""

    def token_losses(self, answer: Seen) -> torch.Tensor:
        return weighted_ascent_loss(answer.token_nll, beta1=self.options.beta1, beta2=self.options.beta2)
