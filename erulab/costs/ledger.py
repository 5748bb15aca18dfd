"""What one process has really run: tokens and FLOPs by the closed forms, in how many seconds; and its peak memory."""

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

from erulab.costs import flops
from erulab.costs.flops import Backward, Rows
from erulab.costs.shapes import NO_ADAPTERS, Adapters, ModelShape
from erulab.errors import EnvironmentFault

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")

log = logging.getLogger(__name__)


@dataclass
class Spent:
    """Sums over what was run. Tokens are positions that were computed, padding included.

    FLOPs of a model whose type `erulab.costs` does not know are NaN, and so is every sum they are in.
    """

    tokens: float = 0.0
    supervised_tokens: float = 0.0  # positions that reached the head
    flops_forward: float = 0.0
    flops_backward: float = 0.0
    flops_adversary: float = 0.0  # all that an adversary ran beside the loss, forward and backward; in no other sum

    @property
    def flops(self) -> float:
        return self.flops_forward + self.flops_backward + self.flops_adversary

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Spent)))

    def plain(self) -> dict[str, float | None]:
        """By name, with `flops` over all three; what is not known is None."""
        named = {**asdict(self), "flops": self.flops}
        return {name: None if math.isnan(value) else value for name, value in named.items()}

    @classmethod
    def read(cls, plain: Mapping[str, float | None]) -> Spent:
        """The inverse of `plain`; other keys are left alone."""
        values = (plain[field.name] for field in fields(cls))
        return cls(*(math.nan if value is None else value for value in values))


class Ledger:
    """Adds up what one process runs, and how long it takes. Sums over processes are the caller's."""

    def __init__(self) -> None:
        self._spent = Spent()
        self._started = time.perf_counter()
        self._adversary = False

    @contextmanager
    def adversary(self) -> Iterator[None]:
        """What is run inside is the adversary's."""
        before, self._adversary = self._adversary, True
        try:
            yield
        finally:
            self._adversary = before

    def add_forward(
        self, shape: ModelShape | None, rows: Rows, *, layer: int = 0, adapters: Adapters = NO_ADAPTERS
    ) -> None:
        """One forward of the blocks from `layer` on."""
        if not self._adversary:
            self._spent.tokens += rows.tokens
            self._spent.supervised_tokens += rows.supervised
        cost = flops.forward(shape, rows, layer=layer, adapters=adapters) if shape is not None else math.nan
        if self._adversary:
            self._spent.flops_adversary += cost
        else:
            self._spent.flops_forward += cost

    def add_backward(
        self,
        shape: ModelShape | None,
        rows: Rows,
        kind: Backward,
        *,
        layer: int = 0,
        adapters: Adapters = NO_ADAPTERS,
        checkpointing: bool = False,
    ) -> None:
        """The backward of a forward over the same rows; `layer` with Backward.activations, see `flops.backward`.

        Args:
            checkpointing: the blocks from `layer` on run again first.
        """
        cost = math.nan
        if shape is not None:
            cost = flops.backward(shape, rows, kind, layer=layer, adapters=adapters, checkpointing=checkpointing)
        if shape is not None and checkpointing:
            cost += (shape.layers - layer) / shape.layers * flops.recompute(shape, rows, adapters=adapters)
        if self._adversary:
            self._spent.flops_adversary += cost
        else:
            self._spent.flops_backward += cost

    @property
    def of_adversary(self) -> bool:
        """Whether what is run now is the adversary's."""
        return self._adversary

    @property
    def spent(self) -> Spent:
        """What was added since the last take."""
        return replace(self._spent)

    @property
    def seconds(self) -> float:
        """Since the last take, and those carried over."""
        return time.perf_counter() - self._started

    def carry(self, spent: Spent, seconds: float) -> None:
        """Adds what an earlier process had spent on the same work."""
        self._spent += spent
        self._started -= seconds

    def take(self) -> Spent:
        """What was added since the last take; counting starts anew."""
        spent, self._spent, self._started = self._spent, Spent(), time.perf_counter()
        return spent


def peak_memory(device: str) -> int:
    """Most bytes that this process has held since `forget_peak_memory`: allocated by torch on a GPU, else resident.

    Raises:
        EnvironmentFault: the system does not tell.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not getrusage: on Linux a child's ru_maxrss begins at what its parent held, also after exec.
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    if found is None:
        raise EnvironmentFault("/proc/self/status gives no VmHWM, so peak memory cannot be told on this system")
    return int(found[1]) * 1024


def forget_peak_memory(device: str) -> None:
    """Lets the peak begin anew at what is held now; on a CPU only where Linux lets a process do that to itself."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform != "darwin":
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError as error:
            # Some containers have no such file, or not for writing: figures are then of the whole process so far.
            log.info("peak memory is the process's so far: %s", error)
