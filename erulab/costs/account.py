"""Costs of making a product of the cache, over all processes; kept with the product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from erulab.costs.ledger import Ledger, Spent, forget_peak_memory, peak_memory


@dataclass(frozen=True)
class Costs:
    """Time, work and peak memory: of one process, of all processes, or of several products."""

    seconds: float
    spent: Spent
    peak_memory_bytes: int

    def plain(self) -> dict[str, float | None]:
        """Returns one flat dict, as in stages.json; unknown FLOPs are None."""
        return {"seconds": self.seconds, **self.spent.plain(), "peak_memory_bytes": self.peak_memory_bytes}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Costs:
        """Makes costs from what `plain` returned."""
        return cls(float(plain["seconds"]), Spent.read(plain), int(plain["peak_memory_bytes"]))

    def of_training(self) -> dict[str, float | None]:
        """Returns the entries of scores.json about the training that made a model."""
        plain = self.spent.plain()
        return {
            **{f"cost/{name}": plain[name] for name in ("tokens", "flops", "flops_adversary")},
            "cost/seconds": self.seconds,
            "cost/peak_memory_gb": self.peak_memory_bytes / 1e9,
        }


def start(ledger: Ledger, device: str) -> None:
    """Starts counting for the next product."""
    ledger.take()
    forget_peak_memory(device)


def stop(ledger: Ledger, device: str) -> Costs:
    """Returns the costs of this process since `start`."""
    seconds = ledger.seconds  # read first: `take` restarts them
    return Costs(seconds, ledger.take(), peak_memory(device))


def sum_over_processes(processes: Iterable[Costs]) -> Costs:
    """Adds up processes that ran at the same time: the longest time, all work, the largest memory."""
    found = list(processes)
    return Costs(max(one.seconds for one in found), _total_spent(found), max(one.peak_memory_bytes for one in found))


def sum_over_products(products: Iterable[Costs]) -> Costs:
    """Adds up products that were made one after another: all time, all work, the largest memory; none cost nothing."""
    found = list(products)
    peak = max((one.peak_memory_bytes for one in found), default=0)
    return Costs(sum(one.seconds for one in found), _total_spent(found), peak)


def _total_spent(found: Iterable[Costs]) -> Spent:
    return reduce(add, (one.spent for one in found), Spent())
