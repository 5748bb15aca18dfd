"""What making a product has cost, over all processes: kept with the product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from erulab.costs.ledger import Ledger, Spent, forget_peak_memory, peak_memory


@dataclass(frozen=True)
class Costs:
    """Time, work and memory of one process, of all processes, or of several products."""

    seconds: float
    spent: Spent
    peak_memory_bytes: int

    def plain(self) -> dict[str, float | None]:
        """One flat object, as in stages.json; FLOPs that are not known are None."""
        return {"seconds": self.seconds, **self.spent.plain(), "peak_memory_bytes": self.peak_memory_bytes}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Costs:
        """The inverse of `plain`."""
        return cls(float(plain["seconds"]), Spent.read(plain), int(plain["peak_memory_bytes"]))

    def of_training(self) -> dict[str, float | None]:
        """What scores.json says of the training that made a model."""
        plain = self.spent.plain()
        return {
            **{f"cost/{name}": plain[name] for name in ("tokens", "flops", "flops_adversary")},
            "cost/seconds": self.seconds,
            "cost/peak_memory_gb": self.peak_memory_bytes / 1e9,
        }


def start(ledger: Ledger, device: str) -> None:
    """What is run from here on belongs to the next product."""
    ledger.take()
    forget_peak_memory(device)


def stop(ledger: Ledger, device: str) -> Costs:
    """This process's costs since `start`."""
    seconds = ledger.seconds  # before they begin anew
    return Costs(seconds, ledger.take(), peak_memory(device))


def side_by_side(processes: Iterable[Costs]) -> Costs:
    """Of processes that ran at the same time; memory is that of the largest."""
    found = list(processes)
    return Costs(max(one.seconds for one in found), _spent(found), max(one.peak_memory_bytes for one in found))


def in_turn(products: Iterable[Costs]) -> Costs:
    """Of products that were made one after another."""
    found = list(products)
    return Costs(sum(one.seconds for one in found), _spent(found), max(one.peak_memory_bytes for one in found))


def _spent(found: Iterable[Costs]) -> Spent:
    return reduce(add, (one.spent for one in found), Spent())
