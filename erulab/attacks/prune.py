"""Pruning: removing the smallest weights can undo a small update that had suppressed knowledge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import lazy_loader

from erulab.attacks.base import Attack, Attempt, Lab, Setting
from erulab.attacks.weights.linear_layers import rewrite_weights
from erulab.options import require
from erulab.registry import attacks

if TYPE_CHECKING:
    import torch

    from erulab.data.rows import Benchmark
    from erulab.models.loaded import LoadedModel
else:
    torch = lazy_loader.load("torch")


def zero_smallest(weight: torch.Tensor, share: float) -> torch.Tensor:
    """Returns the matrix with the entries of least magnitude set to zero; of equal entries the first.

    Args:
        weight: (out, in).
        share: share of the entries that is set to zero, in [0, 1]; their number is rounded.
    Source: magnitude pruning, uniform over layers: Han et al. 2015, arXiv:1506.02626.
    """
    smallest = weight.flatten().abs().argsort(stable=True)[: round(share * weight.numel())]
    return weight.flatten().index_fill(0, smallest, 0.0).view_as(weight)


@dataclass
class PruneOptions:
    name: str = "prune"
    # shares of each matrix's weights that are set to zero, smallest first; one is chosen
    shares: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.4, 0.5])

    def __post_init__(self) -> None:
        fits = bool(self.shares) and all(0 <= share < 1 for share in self.shares)
        require(fits, "shares", "a list of numbers in [0, 1), such as [0.1,0.5]", self.shares)


@attacks.register("prune", PruneOptions, paper="magnitude pruning, Han et al. 2015, arXiv:1506.02626")
class Prune(Attack):
    """Sets the smallest weights of each linear layer and expert to zero, except in the output head; each separately."""

    changes_weights = True

    def __init__(self, options: PruneOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        return [{}]

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        for share in self.options.shares:
            pruned = subject.copy()
            left = rewrite_weights(pruned, partial(zero_smallest, share=share))
            yield Attempt({"share": share}, partial(lab.score, pruned), pruned, left_alone=left)
