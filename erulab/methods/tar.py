"""tar: tampering attack resistance (Tamirisa et al. 2024). Uniform answers, also where fine-tuning leads to.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = sum over tokens t of forget responses of KL(uniform, p_t) / sum over forget rows of T
    L_retain = sum over retain rows of s / sum over retain rows of T
               + states_weight * sum over own tokens of mean over the width of (h_l - h_l,ref)^2
                 / number of own tokens of retain rows
    s        = -sum_t log p(y_t | x, y_<t)   NLL of a response in nats, over its T supervised tokens
    h_l, h_l,ref   state after block `layer` under the policy and under the model before unlearning, kept frozen

`adversary=relearning` (the default) takes the gradient of L_forget along a simulated relearning of other forget facts,
K steps long, to first order (adversaries/relearning.py), and that of L_retain at the weights themselves. With
`adversary.steps=0` or `adversary=none` this is the plain loss: max_entropy with a term on hidden states.

Published: K 64 (here 8 by default, for small models), the outer learning rate 2e-5, a first training on the forget loss
alone before it, which is left out here: L_forget falls from the first step.
When to use it: to compare with a defence that trains against the attack itself. What it costs: about K / every + K
forwards and backwards of forget rows per step, a frozen copy of the target (none with LoRA), and the weights twice.
Limit: the entropy of forget answers at theta_k is what is raised, which need not hold for longer or other attacks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Optional

from erulab.methods.base import GradientMethod, Margin, MethodOptions, state_after_block
from erulab.methods.max_entropy import kl_from_uniform
from erulab.methods.needs import Needs, Step
from erulab.methods.retain import RETAIN_TERMS, Normalizer, Retain, RetainTerm
from erulab.methods.seen import ForgetRows, Seen, TokenValue
from erulab.options import require_not_negative
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


_GAP = TokenValue("kl_from_uniform", kl_from_uniform)


@dataclass
class TAROptions(MethodOptions):
    name: str = "tar"
    states_weight: float = 1.0  # factor of the squared distance of hidden states on retain rows; 0: no frozen copy
    layer: Optional[int] = None  # block after which these states are compared; null: the last

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative("states_weight", self.states_weight)
        require_not_negative("layer", self.layer)


@methods.register(
    "tar",
    TAROptions,
    paper="Tamirisa et al. 2024, arXiv:2408.00761",
    needs="an adversary (relearning), retain rows, a frozen copy of the target",
    defaults=["override /adversary@_global_.adversary: relearning"],
)
class TAR(GradientMethod):
    """Uniform answers at the weights that a simulated relearning leads to, with retain NLL and states."""

    options: TAROptions

    @property
    def needs(self) -> Needs:
        return Needs(normalizer=Normalizer.tokens, nll=False, values=(_GAP,))

    @property
    def retain_terms(self) -> tuple[RetainTerm, ...]:
        o = self.options
        terms = RETAIN_TERMS[o.retain]
        if not o.states_weight:
            return terms
        (states,) = RETAIN_TERMS[Retain.states]
        return (*terms, replace(states, name="state_distance", weight=o.states_weight))

    def layers(self, depth: int) -> tuple[int, ...]:
        return (state_after_block("layer", self.options.layer, depth, 1.0),)

    def losses(
        self, rows: ForgetRows, margin: Margin | None, step: Step
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seen = rows.policy
        assert isinstance(seen, Seen)
        gap = seen.sum_by_row(seen.values[_GAP.name])
        return gap, {"nll": seen.mean, "kl_from_uniform": gap.detach() / seen.tokens}
