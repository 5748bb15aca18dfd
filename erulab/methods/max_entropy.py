"""max_entropy: answers from the uniform distribution (Yuan et al. 2024, "ME+GD"). Spreads the words of forget answers.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = sum over tokens t of forget responses of KL(u || p_t) / sum over forget rows of T
    KL(u || p) = -log V - (1/V) sum over the vocabulary of log p,      u = 1/V for each of V words
    L_retain = sum over retain rows of s / sum over retain rows of T
    s        = -sum_t log p(y_t | x, y_<t)     NLL of a response in nats, over its T supervised tokens

L_forget is 0 at the uniform distribution and nowhere below it, so training has an end. It asks for more than
forgetting: a model that never saw the facts is far from uniform, and the answers that are left are noise; use it where
it does not matter what is said in place of the fact. A step costs what a step of gd costs, and one more pass of the
head over forget responses.

Published: forget weight 0.1, learning rate 1e-5, 5 epochs (Llama-2-7B, TOFU).
Differences: the published code takes the prompt's tokens too (mask: false) and adds 1e-12 to p; here supervised tokens
alone count, and log p is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.methods.base import MethodOptions
from erulab.methods.seen import Seen, TokenValue
from erulab.methods.token_method import TokenMethod
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


def kl_from_uniform(logits: torch.Tensor, labels: torch.Tensor, reference_logits: torch.Tensor | None) -> torch.Tensor:
    """Returns KL(u || p) over the whole vocabulary, u being uniform.

    Args:
        logits: (positions, vocabulary).
        labels, reference_logits: not read.
    Returns:
        (positions,) nats: logsumexp(z) - mean(z) - log V, which is 0 where all logits are equal.
    Source: arXiv:2410.08109, the code of "ME".
    """
    return logits.logsumexp(-1) - logits.mean(-1) - math.log(logits.shape[-1])


@dataclass
class MaxEntropyOptions(MethodOptions):
    name: str = "max_entropy"
    forget_weight: float = 0.1  # factor of the loss on forget rows


@methods.register("max_entropy", MaxEntropyOptions, paper="Yuan et al. 2024, arXiv:2410.08109", needs="retain rows")
class MaxEntropy(TokenMethod):
    """KL from the uniform distribution on the forget responses, with retain NLL."""

    @property
    def values(self) -> tuple[TokenValue, ...]:
        return (TokenValue("kl_from_uniform", kl_from_uniform),)

    def token_losses(self, answer: Seen) -> torch.Tensor:
        return answer.values["kl_from_uniform"]
