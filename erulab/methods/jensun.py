"""jensun: Jensen-Shannon unlearning, JensUn (Singh et al. 2025). Teaches a refusal with a loss that is bounded.

    L = forget_weight * L_forget + retain_weight * L_retain          (retain=js by default)

    L_forget = sum over tokens t of refusals to forget prompts of JS(p_t, onehot(y_t)) / sum over forget rows of T
    L_retain = sum over tokens t of retain responses of JS(p_t, p_ref,t) / sum over retain rows of T
    JS(p, q) = (KL(p || m) + KL(q || m)) / 2,   m = (p + q) / 2,   in [0, log 2] nats
    p_t, p_ref,t   distributions of the next word under the policy and under the model before unlearning

At one word's certainty JS has a closed form in its probability p = exp(-NLL_t):

    JS(p, onehot(y)) = log 2 + (p log p - (1 + p) log(1 + p)) / 2

Both terms are bounded and have gradient 0 at their minimum, so neither outweighs the other late in training: use it
for long trainings and where retain behaviour must stay what it was. Its gradient also vanishes where p is near 0, so
it starts slowly from a model that never refuses. As in idk, the forgotten answer is in no term: look at the attacks
before calling it forgotten. It runs the model before unlearning on retain rows (one more forward): a frozen copy in
memory, with LoRA none.

Published: weights 1 and 1, learning rate 5e-6 (8e-6 in its code), 10 epochs (Llama-3.2-3B, Lesser Known Facts).
Differences: the published code sets "No idea" with probability 1 for each of its words at every position, the prompt's
and padding's too, which is no distribution; here each position has its own word of the row's refusal, and supervised
tokens alone count. Its retain term likewise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.methods.base import MethodOptions
from erulab.methods.needs import Answer
from erulab.methods.retain import Retain
from erulab.methods.seen import Seen
from erulab.methods.token_method import TokenMethod
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


def js_to_word(nll: torch.Tensor) -> torch.Tensor:
    """Returns the Jensen-Shannon divergence between a distribution and certainty of one word.

    Args:
        nll: (tokens,) NLL of the word under the distribution, nats.
    Returns:
        (tokens,) nats in [0, log 2]; 0 where the word is certain.
    Source: arXiv:2509.02820; in closed form here.
    """
    # In q = 1 - p, because the sum of the module's formula cancels to rounding errors where p is near 1.
    q = -(-nll).expm1()
    return (q * math.log(2.0) - (2 - q) * (-q / 2).log1p() - (1 - q) * nll) / 2


@dataclass
class JensUnOptions(MethodOptions):
    name: str = "jensun"
    retain: Retain = Retain.js


@methods.register(
    "jensun",
    JensUnOptions,
    paper="Singh et al. 2025, arXiv:2509.02820",
    needs="refusals, retain rows, a frozen copy of the target",
)
class JensUn(TokenMethod):
    """Jensen-Shannon divergence to refusals on forget prompts, and to the target on retain rows."""

    answer = Answer.refusal

    def token_losses(self, answer: Seen) -> torch.Tensor:
        return js_to_word(answer.token_nll)
