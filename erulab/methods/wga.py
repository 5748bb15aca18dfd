"""wga: weighted gradient ascent (Wang et al. 2025). Gradient ascent that leaves alone what is already unlikely.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = - sum over tokens t of forget responses of sg[p_t^beta] NLL_t / sum over forget rows of T
    L_retain =   sum over retain rows of s / sum over retain rows of T
    NLL_t    = -log p_t,   p_t = p(y_t | x, y_<t)     of one supervised token, nats
    s        = sum_t NLL_t                            of a response, over its T supervised tokens

With beta 0 this is gd. The gradient with respect to a token's logits is p_t^beta times that of gradient ascent, so a
forgotten token is pushed no further: use it where ga or gd destroy the model. A step costs what a step of gd costs.
L_forget is bounded, -p^beta NLL >= -1 / (e beta), and rises again once tokens are forgotten: read method/nll instead.

Published: beta 1, weights 1 and 1, learning rate 1e-5 (Llama-2-7B) or 2e-5 (Phi-1.5), 16 rows per step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.methods.base import MethodOptions
from erulab.methods.seen import Seen
from erulab.methods.token_method import TokenMethod
from erulab.options import require_not_negative
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


def weighted_ascent_loss(nll: torch.Tensor, *, beta1: float, beta2: float) -> torch.Tensor:
    """Returns `-p^beta1 (1 - p)^beta2 nll` with p = exp(-nll); the weight carries no gradient.

    Args:
        nll: (tokens,) NLL of single tokens, nats.
        beta1: power of p: how fast the weight falls as a token becomes unlikely.
        beta2: power of 1 - p: how fast the weight falls as a token becomes certain.
    Returns:
        (tokens,) losses, nats.
    Source: WGA, arXiv:2502.19301 (beta2 = 0); SatImp, arXiv:2505.11953.
    """
    known = nll.detach()
    # 1 - p by expm1: for a token that is almost certain, 1 - exp(-nll) would round to 0 or to steps of 6e-8.
    weight = (-beta1 * known).exp() * (-(-known).expm1()) ** beta2
    return -weight * nll


@dataclass
class WGAOptions(MethodOptions):
    name: str = "wga"
    beta: float = 1.0  # power of the token's probability in its weight; 0: gradient ascent

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative("beta", self.beta)


@methods.register("wga", WGAOptions, paper="Wang et al. 2025, arXiv:2502.19301", needs="retain rows")
class WeightedAscent(TokenMethod):
    """Gradient ascent on the forget responses, each token weighted by its probability, with retain NLL."""

    def token_losses(self, answer: Seen) -> torch.Tensor:
        return weighted_ascent_loss(answer.token_nll, beta1=self.options.beta, beta2=0.0)
