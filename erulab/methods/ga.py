"""ga: gradient ascent (Jang et al. 2023). Raises the NLL of the forget responses.

    L = forget_weight * L_forget                          (retain=none by default)

    L_forget = - sum over forget rows of s / sum over forget rows of T
    s        = -sum_t log p(y_t | x, y_<t)   NLL of the response in nats, over its T supervised tokens

The mean is over tokens, not over rows. L_forget has no lower bound: a training that is long enough destroys the model.
With `method.retain=nll` this is gd, with `method.retain=kl` it is kl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.methods.base import GradientMethod, Margin, MethodOptions
from erulab.methods.needs import Needs, Step
from erulab.methods.retain import Normalizer, Retain
from erulab.methods.seen import ForgetRows
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


def ascent_loss(nll: torch.Tensor) -> torch.Tensor:
    """Returns `-nll`, whose descent raises the NLL.

    Args:
        nll: (rows,) sequence NLL, nats.
    Returns:
        (rows,) losses, nats; their sum over the global batch is divided by its supervised tokens.
    Source: Jang et al. 2023, arXiv:2210.01504.
    """
    return -nll


@dataclass
class GAOptions(MethodOptions):
    name: str = "ga"
    retain: Retain = Retain.none


@methods.register("ga", GAOptions, paper="Jang et al. 2023, arXiv:2210.01504")
class GradientAscent(GradientMethod):
    """Gradient ascent on the forget responses, no retain term."""

    @property
    def needs(self) -> Needs:
        return Needs(normalizer=Normalizer.tokens)

    def losses(
        self, rows: ForgetRows, margin: Margin | None, step: Step
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return ascent_loss(rows.policy.total), {"nll": rows.policy.mean}
