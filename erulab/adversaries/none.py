"""none: no adversary, plain unlearning."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.adversaries.base import HookablePolicy, StatelessAdversary
from erulab.options import require
from erulab.registry import adversaries

if TYPE_CHECKING:
    import torch

    from erulab.tokens.batch import Batch


@dataclass
class NoAdversaryOptions:
    name: str = "none"
    p: float = 0.0  # nothing is perturbed

    def __post_init__(self) -> None:
        require(self.p == 0, "p", "0 without an adversary (choose one: adversary=rfa)", self.p)


@adversaries.register("none", NoAdversaryOptions)
class NoAdversary(StatelessAdversary):
    """No perturbation."""

    def __init__(self, options: NoAdversaryOptions) -> None:
        self.p = 0.0
        self.seed = 0

    def attach(
        self, policy: HookablePolicy, forget: Batch, perturbed_as_forget_row: torch.Tensor, step: int
    ) -> AbstractContextManager[None]:
        return nullcontext()
