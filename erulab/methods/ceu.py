"""ceu: cross-entropy unlearning, CE-U (Yang 2025). Learns the model's own distribution without the forgotten word.

    L = forget_weight * L_forget + retain_weight * L_retain          (retain=none by default)

    L_forget = sum over tokens t > skip_first of forget responses of -log(1 - p_t) / sum over forget rows of T
    p_t      = p(y_t | x, y_<t)     of one supervised token

The paper's loss of a token is CE(sg[q], p), q being p renormalised without y_t. It is H(q) - log(1 - p_t), and with the
constant q its gradient is that of -log(1 - p_t) alone: p - q with respect to the logits, which is p_t at the forgotten
word and -p_v p_t / (1 - p_t) at any other word v. H(q) moves without being descended, so it is left out of L_forget.

The gradient vanishes as p_t does, where that of gradient ascent is largest: training does not diverge, and needs
neither a reference nor retain rows. Use it where there is nothing to rehearse. The words that stay likely are the
model's second guesses. The first token of an answer is left out, because it rarely carries the fact; none is where
method.forget_tokens chooses the tokens. A step costs what a step of ga costs, and one more pass of the head over forget
responses.

Published: skip_first 1, learning rate 1e-5, 32 rows per step, no retain term (Llama-3.2-1B).
Difference: the published code divides by the tokens that are not skipped; here by all supervised tokens, which
makes L_forget smaller by the share of skipped ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.methods.base import MethodOptions
from erulab.methods.needs import ForgetTokens
from erulab.methods.retain import Retain
from erulab.methods.seen import Seen, TokenValue
from erulab.methods.token_method import TokenMethod
from erulab.options import require_not_negative
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


def log_without_label(
    logits: torch.Tensor, labels: torch.Tensor, reference_logits: torch.Tensor | None
) -> torch.Tensor:
    """Returns -log(1 - p) with p the probability of the label.

    Args:
        logits: (positions, vocabulary).
        labels: (positions,) int64, the tokens to forget.
        reference_logits: not read.
    Returns:
        (positions,) nats; the gradient is p - q with respect to the logits, q being p renormalised without the label.
    Source: arXiv:2503.01224.
    """
    # Not from the token's NLL: for a certain token 1 - p rounds to 0, and the gradient would be inf * 0.
    return logits.logsumexp(-1) - logits.scatter(1, labels[:, None], float("-inf")).logsumexp(-1)


@dataclass
class CEUOptions(MethodOptions):
    name: str = "ceu"
    retain: Retain = Retain.none
    skip_first: int = 1  # tokens at the beginning of each answer that are left out

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative("skip_first", self.skip_first)


@methods.register("ceu", CEUOptions, paper="Yang 2025, arXiv:2503.01224")
class CEU(TokenMethod):
    """Cross-entropy to the model's own distribution without the forgotten token, no retain term."""

    @property
    def values(self) -> tuple[TokenValue, ...]:
        return (TokenValue("log_without_label", log_without_label),)

    def token_losses(self, answer: Seen) -> torch.Tensor:
        skipped = self.options.skip_first if self.options.forget_tokens is ForgetTokens.all else 0
        return answer.values["log_without_label"] * (answer.place >= skipped)
