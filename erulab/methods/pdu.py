"""pdu: primal-dual unlearning (Entesari et al. 2025). Flattens forget logits under a constraint on the retain loss.

    minimise  forget_weight * L_forget   subject to   L_retain <= epsilon,       by descent on

    L = forget_weight * L_forget + m_k * L_retain                                in step k

    L_forget = sum over tokens t of forget responses of (max z_t - mean z_t)^2 / sum over forget rows of T
    L_retain = sum over retain rows of s / sum over retain rows of T             (method.retain=nll)
    m_k      = retain_weight                                                     in the first `warmup` of the steps
    m_k+1    = max(0, m_k + dual_step * (L_retain - epsilon))                    after step k from then on
    z_t      logits of the next word at the token y_t; max and mean over the vocabulary
    s        = -sum_t log p(y_t | x, y_<t)     NLL of a response in nats, over its T supervised tokens

L_forget is 0 where all words are equally likely. The multiplier m rises while retain rows are worse than epsilon nats
per token, and falls to 0 while they are better, so epsilon says how much may be lost; take it somewhat above the
target's own retain loss (`retain_loss` of the first step). Use it where that bound is known and the balance of the two
terms is not. A step costs what a step of gd costs, and one more pass of the head over forget responses.

Published (TOFU): epsilon 0.3, dual_step 5, retain_weight 100, warm-up of 5 epochs, learning rate 1e-5, 10 epochs for
Llama-3.2-1B and 3B; MUSE: tasks' own epsilon, dual_step 1, retain_weight 50, 3 of 10 epochs.
Differences: the published code flattens every position, the prompt's and padding's too, and updates m after each
micro-batch of each process by that process's own retain loss; here supervised tokens alone count, and one update per
optimizer step uses the retain loss of the global batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lazy_loader

from erulab.methods.base import MethodOptions
from erulab.methods.needs import Step
from erulab.methods.retain import Retain
from erulab.methods.seen import Seen, TokenValue
from erulab.methods.token_method import TokenMethod
from erulab.options import require, require_fraction, require_not_negative
from erulab.registry import methods

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


def squared_logit_margin(
    logits: torch.Tensor, labels: torch.Tensor, reference_logits: torch.Tensor | None
) -> torch.Tensor:
    """Returns the squared distance of the largest logit to the mean of all.

    Args:
        logits: (positions, vocabulary).
        labels, reference_logits: not read.
    Returns:
        (positions,) squared nats; 0 where all logits are equal.
    Source: arXiv:2506.05314, logit margin flattening.
    """
    return (logits.amax(-1) - logits.mean(-1)).square()


def updated_multiplier(multiplier: float, violation: float, *, dual_step: float) -> float:
    """Returns `max(0, multiplier + dual_step * violation)`; violation: retain loss less its bound, nats per token."""
    return max(0.0, multiplier + dual_step * violation)


@dataclass
class PDUOptions(MethodOptions):
    name: str = "pdu"
    retain_weight: float = 100.0  # factor of the retain term until the multiplier moves
    epsilon: float = 0.3  # bound on the retain loss, nats per token
    dual_step: float = 5.0  # change of the multiplier per step and nat beyond the bound
    warmup: float = 0.5  # share of the steps before the multiplier moves

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.retain is not Retain.none, "retain", "a term to constrain, such as nll", self.retain.value)
        require_not_negative("epsilon", self.epsilon)
        require_not_negative("dual_step", self.dual_step)
        require_fraction("warmup", self.warmup)


@methods.register("pdu", PDUOptions, paper="Entesari et al. 2025, arXiv:2506.05314", needs="retain rows")
class PrimalDual(TokenMethod):
    """Flattening of forget logits, with a multiplier that keeps the retain loss under a bound."""

    def __init__(self, options: PDUOptions) -> None:
        super().__init__(options)
        self._multiplier = options.retain_weight

    @property
    def values(self) -> tuple[TokenValue, ...]:
        return (TokenValue("squared_margin", squared_logit_margin),)

    def token_losses(self, answer: Seen) -> torch.Tensor:
        return answer.values["squared_margin"]

    def weights(self, step: Step) -> tuple[float, float]:
        return self.options.forget_weight, self._multiplier

    def end_step(self, metrics: Mapping[str, float], step: Step) -> dict[str, float]:
        """Moves the multiplier by the retain loss of the global batch; logs the one that this step was taken with."""
        used, o = self._multiplier, self.options
        if step.number >= o.warmup * step.total:
            violation = metrics["retain_loss"] - o.epsilon
            self._multiplier = updated_multiplier(used, violation, dual_step=o.dual_step)
        return {"multiplier": used}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"multiplier": torch.tensor(self._multiplier, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self._multiplier = float(state["multiplier"])
