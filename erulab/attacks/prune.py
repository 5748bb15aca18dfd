"""Pruning: without its smallest weights a model may say again what a small update had pushed aside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import lazy_loader

from erulab.attacks.base import Attack, Attempt, Lab, Setting
from erulab.attacks.weights.linear_layers import rewrite
from erulab.options import require
from erulab.registry import attacks

if TYPE_CHECKING:
    import torch

    from erulab.data.rows import Benchmark
    from erulab.models.loaded import LoadedModel
else:
    torch = lazy_loader.load("torch")


def without_smallest(weight: torch.Tensor, share: float) -> torch.Tensor:
    """The matrix with its entries of least magnitude set to zero: a share of them, rounded; of equals the first.

    Args:
        weight: (out, in); share: in [0, 1].
    Source: magnitude pruning, uniform over layers: Han et al. 2015, arXiv:1506.02626.
    """
    smallest = weight.flatten().abs().argsort(stable=True)[: round(share * weight.numel())]
    return weight.flatten().index_fill(0, smallest, 0.0).view_as(weight)


@dataclass
class PruneOptions:
    name: str = "prune"
    shares: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.4, 0.5])  # of each matrix's weights

    def __post_init__(self) -> None:
        fits = bool(self.shares) and all(0 <= share < 1 for share in self.shares)
        require(fits, "shares", "a list of numbers in [0, 1), such as [0.1,0.5]", self.shares)


@attacks.register("prune", PruneOptions, paper="magnitude pruning, Han et al. 2015, arXiv:1506.02626")
class Prune(Attack):
    """Zeroes the smallest weights of every linear layer but the output head, each matrix by itself."""

    changes_weights = True

    def __init__(self, options: PruneOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        return [{}]

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        for share in self.options.shares:
            pruned = subject.copy()
            rewrite(pruned, partial(without_smallest, share=share))
            yield Attempt({"share": share}, partial(lab.score, pruned), pruned)
