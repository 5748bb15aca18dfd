"""Retraining: the base model fine-tuned on retain rows only, the gold standard of forgetting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.methods.base import ForgetRows, Margin, Normalizer, Pairs, Trains
from erulab.registry import methods

if TYPE_CHECKING:
    import torch


@dataclass
class RetrainOptions:
    name: str = "retrain"


@methods.register("retrain", RetrainOptions, needs="retain rows")
class Retrain:
    """The oracle as a method: never sees a forget row."""

    trains = Trains.retrain
    normalizer = Normalizer.tokens
    pairs = Pairs.none
    takes_reward = False

    def __init__(self, options: RetrainOptions) -> None:
        self.options = options

    def losses(self, rows: ForgetRows, margin: Margin | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        raise TypeError("retrain has no forget loss")
