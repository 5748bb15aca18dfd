"""Counts the matrices that an attack on weights leaves as they are: where they are many, it shows no robustness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lazy_loader

from erulab.attacks.base import Inapplicable

if TYPE_CHECKING:
    import torch

    from erulab.models.loaded import LoadedModel
else:
    torch = lazy_loader.load("torch")

MOST = 0.05  # share of the blocks' weights that may be left alone by an attack that shows robustness


@dataclass(frozen=True)
class BlockMatrix:
    """A parameter of a block that holds one matrix or several.

    place: its name inside a block.
    size: number of its weights.
    reached: whether the attack changes it.
    router: whether it sends tokens to experts.
    """

    place: str
    size: int
    reached: bool
    router: bool = False


def shares(matrices: Sequence[BlockMatrix]) -> dict[str, float]:
    """Returns the place of each matrix that is not reached -> its share of the weights of all, over all blocks."""
    total = sum(one.size for one in matrices)
    found: dict[str, float] = {}
    for one in matrices:
        if not one.reached:
            found[one.place] = found.get(one.place, 0.0) + one.size / total
    return found


def check_known(matrices: Sequence[BlockMatrix]) -> None:
    """Checks that almost all weights of the blocks stand in linear layers, experts and routers.

    Raises:
        Inapplicable: more than `MOST` of them stand elsewhere. A few may: short convolutions, rates of recurrent
            layers, which libraries keep too.
    """
    unknown = shares([BlockMatrix(one.place, one.size, one.reached or one.router) for one in matrices])
    if sum(unknown.values()) > MOST:
        raise Inapplicable(
            f"{_percent(unknown)} of the blocks' weights ({_largest(unknown)}) are neither in linear layers nor in "
            "experts that erulab knows, and would be left as they are"
        )


def unchanged(before: LoadedModel, after: LoadedModel) -> dict[str, float]:
    """Returns the place of each matrix of the blocks that is equal in both models -> its share of their weights.

    A matrix with an adapter that is not yet merged has another name in `after`, and counts as changed.
    """
    others = dict(after.policy.blocks.named_parameters())
    found = []
    for name, own in before.policy.blocks.named_parameters():
        if own.squeeze().dim() >= 2:
            reached = name not in others or not torch.equal(own, others[name])
            found.append(BlockMatrix(name.partition(".")[2], own.numel(), reached))
    return shares(found)


def left_alone_words(left: Mapping[str, float]) -> str:
    """Writes the share that was left as it is, and the places, largest first."""
    return f"{_percent(left)} of the blocks' weights were left as they are ({_largest(left)})"


def _percent(left: Mapping[str, float]) -> str:
    return f"{100 * sum(left.values()):.2g} %"


def _largest(left: Mapping[str, float]) -> str:
    return ", ".join(sorted(left, key=lambda place: -left[place])[:3])
