"""undial: self-distillation from adjusted logits (Dong et al. 2024). The target teaches all but the forgotten word.

    L = forget_weight * L_forget + retain_weight * L_retain          (retain=none by default)

    L_forget = sum over tokens t of forget responses of CE(q_t, p_t) / sum over forget rows of T
    CE(q, p) = - sum over the vocabulary of q log p
    p_t      = softmax(z_t)                          of the policy, at the token y_t
    q_t      = softmax(z_ref,t - beta onehot(y_t))   of the model before unlearning, with beta off the token's logit

The loss has a fixed target, so it is bounded below by the mean entropy of q, and training converges instead of
diverging as ga does; for beta -> infinity q is the target's own distribution renormalised without y_t, for beta 0 it is
the target itself and the gradient is 0 at the start. Use it where a training must be safe to run long. It runs the
model before unlearning beside the policy on each forget row (one more forward): a frozen copy in memory, with LoRA
none, because that model is the policy without its adapters.

Published: beta 10 (of 3, 10, 30), learning rate 1e-4 with LoRA rank 8 (Llama-2-7B), no retain term, 16 rows per step.
Difference: open-unlearning's code averages over prompt and padding too, where the label -100 takes beta off a word
that has nothing to do with the answer; here supervised tokens alone count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import lazy_loader

from erulab.methods.base import MethodOptions
from erulab.methods.retain import Retain
from erulab.methods.seen import Seen, TokenValue
from erulab.methods.token_method import TokenMethod
from erulab.options import require_not_negative
from erulab.registry import methods

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


def adjusted_distillation(
    logits: torch.Tensor, labels: torch.Tensor, reference_logits: torch.Tensor | None, *, beta: float
) -> torch.Tensor:
    """Returns the cross-entropy from the reference's distribution, less the label, to the policy's.

    Args:
        logits, reference_logits: (positions, vocabulary), of the policy and of the model before unlearning.
        labels: (positions,) int64, the tokens to forget.
        beta: what is taken off the label's logit of the reference.
    Returns:
        (positions,) nats; at least the entropy of that adjusted distribution.
    Source: arXiv:2402.10052.
    """
    assert reference_logits is not None
    taken = torch.full_like(reference_logits[:, :1], -beta)
    aim = torch.nn.functional.softmax(reference_logits.scatter_add(1, labels[:, None], taken), -1)
    return -(aim * torch.nn.functional.log_softmax(logits, -1)).sum(-1)


@dataclass
class UNDIALOptions(MethodOptions):
    name: str = "undial"
    retain: Retain = Retain.none
    beta: float = 10.0  # what is taken off the forgotten token's logit in the model before unlearning

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative("beta", self.beta)


@methods.register(
    "undial", UNDIALOptions, paper="Dong et al. 2024, arXiv:2402.10052", needs="a frozen copy of the target"
)
class UNDIAL(TokenMethod):
    """Distillation of the target's own distribution at forget responses, with the forgotten token made unlikely."""

    @property
    def values(self) -> tuple[TokenValue, ...]:
        function = partial(adjusted_distillation, beta=self.options.beta)
        return (TokenValue("distillation", function, reads_reference=True),)

    def token_losses(self, answer: Seen) -> torch.Tensor:
        return answer.values["distillation"]
