"""The ranks (processes) of a run: which one this is, and how they exchange values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
# What gloo, NCCL and torch's store write if the process at the other end is gone.
LOST_CONNECTION = re.compile(
    r"connection (was )?(closed|reset|refused)|socket closed|broken pipe|remote (process|peer) (has )?exited|"
    r"ncclRemoteError|failed to recv",
    re.IGNORECASE,
)


class Ranks:
    """This process among the `world` processes of a run. With one process every exchange is the identity."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mine(self, items: Sequence[T]) -> list[T]:
        """Returns this rank's share of the items: every world-th one."""
        return list(items[self.rank :: self.world])

    def join(self, mine: list[T]) -> list[T]:
        """Joins the shares of all ranks in the order that `mine` took them from."""
        shares = self.gather_objects(mine)
        total = sum(len(share) for share in shares)
        return [shares[i % self.world][i // self.world] for i in range(total)]

    def gather_objects(self, value: Any) -> list[Any]:
        """Returns the values of all ranks, in rank order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Concatenates the (n, ...) tensors of all ranks along the first axis, in rank order; n may differ."""
        return torch.cat([v.to(values.device) for v in self.gather_objects(values.detach().cpu())])

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the sum over ranks, as a new tensor."""
        total = values.clone()
        if self.world > 1:
            dist.all_reduce(total)
        return total

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()


def is_lost_connection(error: Exception) -> bool:
    """Tells whether an exchange failed because another rank is gone, which is the cause, and not this error."""
    return isinstance(error, RuntimeError) and LOST_CONNECTION.search(str(error)) is not None
