"""Gradient ascent (Jang et al. 2023): raise the NLL of the forget responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.methods.base import ForgetRows, Margin, MethodOptions, Normalizer, Pairs, Retain, Trains
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


def ascent_loss(nll: torch.Tensor) -> torch.Tensor:
    """`-NLL`: over the global batch, divided by its tokens, minus the mean token NLL (METHODS.md section 3).

    Args:
        nll: (rows,) sequence NLL, nats.
    Returns:
        (rows,) losses. Unbounded below: the model collapses if it is trained long enough.
    """
    return -nll


@dataclass
class GAOptions(MethodOptions):
    name: str = "ga"
    retain: Retain = Retain.none


@methods.register("ga", GAOptions, paper="Jang et al. 2023, arXiv:2210.01504")
class GradientAscent:
    """Gradient ascent on the forget responses, no retain term."""

    trains = Trains.forget
    normalizer = Normalizer.tokens
    pairs = Pairs.none
    takes_reward = False

    def __init__(self, options: MethodOptions) -> None:
        self.options = options

    def losses(self, rows: ForgetRows, margin: Margin | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return ascent_loss(rows.policy.total), {"nll": rows.policy.mean}
