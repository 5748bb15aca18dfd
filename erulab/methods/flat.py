"""flat: loss adjustment with forget data only, FLAT (Wang et al. 2024). A refusal against the forgotten answer.

    L = forget_weight * L_forget                          (retain=none by default)

    L_forget = mean over forget rows of -tanh(P(refusal)) / 2 + tanh(P(y)) / 2
    P(y)     = (1/T) sum_t p(y_t | x, y_<t)     mean token probability of a response over its T supervised tokens

This is the total-variation form of its f-divergence between refusal and forgotten answer. L_forget lies in
[-tanh(1)/2, tanh(1)/2], and its gradient with respect to a token's logits is proportional to p_t: it vanishes for words
that are forgotten, and for a refusal that is very unlikely too, so the start is slow where the model never refuses.
Use it where there are no retain rows, but refusals are wanted. A step runs two answers per forget row, and neither a
reference nor retain rows.

Published: learning rate 1e-5, 5 epochs (TOFU; Llama-2-7B).
Difference: the published code averages P over the batch before tanh, which would make a row's loss depend on the rows
beside it; here tanh is taken per row. With one row per batch they are equal, and tanh is nearly straight on [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.methods.base import GradientMethod, Margin, MethodOptions
from erulab.methods.needs import Needs, Pairs, Step
from erulab.methods.retain import Retain
from erulab.methods.seen import ForgetRows, Seen
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


def total_variation_loss(forget: torch.Tensor, refusal: torch.Tensor) -> torch.Tensor:
    """Returns `-tanh(refusal) / 2 + tanh(forget) / 2`.

    Args:
        forget, refusal: (rows,) mean token probabilities of the forgotten answers and of the refusals, in [0, 1].
    Returns:
        (rows,) losses in [-tanh(1) / 2, tanh(1) / 2].
    Source: arXiv:2410.11143, its total-variation variant.
    """
    return (forget.tanh() - refusal.tanh()) / 2


@dataclass
class FLATOptions(MethodOptions):
    name: str = "flat"
    retain: Retain = Retain.none


@methods.register("flat", FLATOptions, paper="Wang et al. 2024, arXiv:2410.11143", needs="refusals")
class FLAT(GradientMethod):
    """A bounded loss that prefers a refusal to the forgotten answer, without reference and without retain rows."""

    @property
    def needs(self) -> Needs:
        return Needs(pairs=Pairs.refusal)

    def losses(
        self, rows: ForgetRows, margin: Margin | None, step: Step
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        forget, refusal = rows.policy, rows.paired
        if not isinstance(forget, Seen) or not isinstance(refusal, Seen):
            raise TypeError("flat needs tokens of both answers, not sums over rows")
        probability, paired = (one.mean_by_row((-one.token_nll).exp()) for one in (forget, refusal))
        metrics = {"nll": forget.mean, "paired_nll": refusal.mean, "probability": probability, "refusal": paired}
        return total_variation_loss(probability, paired), metrics
