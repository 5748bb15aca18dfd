"""Adds up the tokens, FLOPs and seconds of one process while it runs, and reads its peak memory."""

from __future__ import annotations

import logging
import math
import re
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import lazy_loader

from erulab.costs.flops import TokenCounts
from erulab.errors import EnvironmentFault

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")

log = logging.getLogger(__name__)


@dataclass
class Spent:
    """Work that was done, as sums. Tokens are computed positions, padding included.

    FLOPs of a model type that `erulab.costs` does not know are NaN, and so is every sum with them.
    """

    tokens: float = 0.0
    supervised_tokens: float = 0.0  # positions that reached the head
    flops_forward: float = 0.0
    flops_backward: float = 0.0
    flops_adversary: float = 0.0  # forwards and backwards of an adversary beside the loss; in no other sum

    @property
    def flops(self) -> float:
        return self.flops_forward + self.flops_backward + self.flops_adversary

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Spent)))

    def __sub__(self, earlier: Spent) -> Spent:
        return Spent(*(getattr(self, field.name) - getattr(earlier, field.name) for field in fields(Spent)))

    def plain(self) -> dict[str, float | None]:
        """Returns the sums by name, with `flops` over all three kinds; unknown values are None."""
        named = {**asdict(self), "flops": self.flops}
        return {name: None if math.isnan(value) else value for name, value in named.items()}

    @classmethod
    def read(cls, plain: Mapping[str, float | None]) -> Spent:
        """Makes sums from what `plain` returned; ignores other keys."""
        values = (plain[field.name] for field in fields(cls))
        return cls(*(math.nan if value is None else value for value in values))


class Ledger:
    """Adds up the work and time of one process. The caller sums over processes.

    There are two sums: what the product that is being made has cost, which goes on with that of an earlier process, and
    what this process has done itself.
    """

    def __init__(self) -> None:
        self._spent, self._done = Spent(), Spent()
        self._started = time.perf_counter()
        self._adversary = self._adversary_trains = False

    @contextmanager
    def adversary(self, *, trains: bool = False) -> Iterator[None]:
        """Counts the work inside as the adversary's.

        Args:
            trains: whether the backward of each forward with gradients is that of the trained weights; otherwise the
                adversary takes gradients of states, and they are added where it does.
        """
        before = self._adversary, self._adversary_trains
        self._adversary, self._adversary_trains = True, trains
        try:
            yield
        finally:
            self._adversary, self._adversary_trains = before

    def add_forward(self, rows: TokenCounts, flops: float) -> None:
        """Adds one forward.

        Args:
            rows: the positions that it computes.
            flops: NaN if unknown.
        """
        for count in (self._spent, self._done):
            if self._adversary:
                count.flops_adversary += flops
            else:
                count.tokens += rows.tokens
                count.supervised_tokens += rows.supervised
                count.flops_forward += flops

    def add_backward(self, flops: float) -> None:
        """Adds one backward, with what it recomputes; NaN if unknown."""
        for count in (self._spent, self._done):
            if self._adversary:
                count.flops_adversary += flops
            else:
                count.flops_backward += flops

    @property
    def trains(self) -> bool:
        """Whether the backward of a forward that is counted now goes down to the trained weights."""
        return not self._adversary or self._adversary_trains

    @property
    def spent(self) -> Spent:
        """Returns the work since the last `take`."""
        return replace(self._spent)

    @property
    def done(self) -> Spent:
        """Returns the work of this process since it began, also what it had to repeat."""
        return replace(self._done)

    @property
    def seconds(self) -> float:
        """Returns the seconds since the last `take`, with those carried over."""
        return time.perf_counter() - self._started

    def resume(self, spent: Spent, seconds: float) -> None:
        """Continues the count of a product with what a checkpoint says had been spent on it.

        What this process has spent on the product since the last `take` is part of that already, and counts no more.
        """
        self._spent = replace(spent)
        self._started = time.perf_counter() - seconds

    def charge(self, spent: Spent) -> None:
        """Adds the work of another process that the product needed, though this process did not do it."""
        self._spent += spent

    def take(self) -> Spent:
        """Returns the work since the last `take`, and starts counting from zero."""
        spent, self._spent, self._started = self._spent, Spent(), time.perf_counter()
        return spent


def peak_memory(device: str) -> int:
    """Returns the most bytes that this process has held since `forget_peak_memory`.

    On a GPU these are the bytes that torch allocated, on a CPU those resident in memory.

    Raises:
        EnvironmentFault: the system does not report it.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not getrusage: on Linux a child's ru_maxrss begins at what its parent held, also after exec.
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    if found is None:
        raise EnvironmentFault("/proc/self/status has no VmHWM: peak memory cannot be read on this system")
    return int(found[1]) * 1024


def forget_peak_memory(device: str) -> None:
    """Restarts the peak at the bytes held now; on a CPU only where Linux lets a process reset its own peak."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform != "darwin":
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError as error:
            # Some containers lack the file or forbid writing: the peak is then that of the process so far.
            log.info("peak memory is the process's so far: %s", error)
