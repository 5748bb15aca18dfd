"""idk_ap: refusal training with answer preservation, IDK+AP (Yuan et al. 2024). Refuses where it should only.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = sum over forget rows of s(x, refusal) / sum over forget rows of the refusal's T
    L_retain = mean over retain rows of (1/beta) softplus(-beta (s(x, refusal) - s(x, y)))   + the term of method.retain
    s        = -sum_t log p(y_t | x, y_<t)     NLL of a response in nats, over its T supervised tokens

The retain term compares a retain row's own answer y with a refusal to the same prompt, without a reference: it is
log 2 / beta where both are equally likely, and falls to 0 as the answer is preferred. Use it in place of idk, whose
refusals spread to retain prompts. As in idk, the forgotten answer is in no term: look at the attacks before calling it
forgotten. A step runs two answers per retain row: half as much again as a step of idk.

Published: beta 0.1, weights 1 and 1, learning rate 1e-5, 5 epochs (Llama-2-7B, TOFU).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import lazy_loader

from erulab.methods.base import GradientMethod, Margin, MethodOptions
from erulab.methods.needs import Answer, Needs, Step
from erulab.methods.retain import Normalizer, Retain, RetainTerm
from erulab.methods.seen import ForgetRows, RetainRows
from erulab.options import require_positive
from erulab.registry import methods

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


def answer_preservation(answer: torch.Tensor, refusal: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Returns `(1/beta) softplus(-beta (refusal - answer))`.

    Args:
        answer: (rows,) sequence NLL of retain rows' own answers, nats.
        refusal: (rows,) sequence NLL of refusals to the same prompts, nats.
        beta: inverse temperature, per nat of the sequence.
    Returns:
        (rows,) losses, nats; log 2 / beta where both are equal.
    Source: arXiv:2410.08109, its answer preservation loss.
    """
    return torch.nn.functional.softplus(-beta * (refusal - answer)) / beta


@dataclass
class IDKAPOptions(MethodOptions):
    name: str = "idk_ap"
    retain: Retain = Retain.none  # a further term on retain rows, beside answer preservation
    beta: float = 0.1  # inverse temperature of answer preservation, per nat of the sequence

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("beta", self.beta)


@methods.register("idk_ap", IDKAPOptions, paper="Yuan et al. 2024, arXiv:2410.08109", needs="refusals, retain rows")
class RefusalWithPreservation(GradientMethod):
    """Fine-tuning on refusals to forget prompts; retain rows prefer their own answers to refusals."""

    options: IDKAPOptions

    @property
    def needs(self) -> Needs:
        return Needs(answer=Answer.refusal, normalizer=Normalizer.tokens)

    @property
    def retain_terms(self) -> tuple[RetainTerm, ...]:
        preserves = RetainTerm("preservation", self._preservation, Normalizer.rows, nll=True, paired=True)
        return (preserves, *super().retain_terms)

    def losses(
        self, rows: ForgetRows, margin: Margin | None, step: Step
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return rows.policy.total, {"refusal_nll": rows.policy.mean}

    def _preservation(self, rows: RetainRows) -> torch.Tensor:
        assert rows.paired is not None
        return answer_preservation(rows.policy.total, rows.paired.total, beta=self.options.beta)
