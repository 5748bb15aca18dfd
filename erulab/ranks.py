"""The processes of a run: which one this is, and how they exchange values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class Ranks:
    """This process among `world` equals. With one process every exchange is the identity."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mine(self, items: Sequence[T]) -> list[T]:
        """This rank's share: every world-th item."""
        return list(items[self.rank :: self.world])

    def join(self, mine: list[T]) -> list[T]:
        """The shares of all ranks, back in the order `mine` took them from."""
        shares = self.gather_objects(mine)
        total = sum(len(share) for share in shares)
        return [shares[i % self.world][i // self.world] for i in range(total)]

    def gather_objects(self, value: Any) -> list[Any]:
        """Every rank's value, in rank order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """(n of all ranks, ...) concatenated in rank order."""
        return torch.cat([v.to(values.device) for v in self.gather_objects(values.detach().cpu())])

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over ranks; a new tensor."""
        total = values.clone()
        if self.world > 1:
            dist.all_reduce(total)
        return total

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()
