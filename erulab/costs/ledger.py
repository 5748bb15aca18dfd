"""What a run has really cost: tokens and FLOPs by the closed forms, peak memory."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lazy_loader

from erulab.costs import flops
from erulab.costs.flops import Backward, Rows
from erulab.costs.shapes import ModelShape
from erulab.errors import EnvironmentFault

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


@dataclass
class Spent:
    """Sums over what one process ran. Tokens are positions that were computed, padding included."""

    tokens: float = 0.0
    supervised_tokens: float = 0.0  # positions that reached the head
    flops_forward: float = 0.0
    flops_backward: float = 0.0
    flops_adversary: float = 0.0  # all that an adversary ran beside the loss, forward and backward; in no other sum

    def plain(self) -> dict[str, float]:
        """By name, with `flops` over all three."""
        return {**asdict(self), "flops": self.flops_forward + self.flops_backward + self.flops_adversary}


class Ledger:
    """Adds up what one process runs. Sums over processes are the caller's (peak memory: the maximum).

    A model whose type `erulab.costs` does not know counts its tokens only.
    """

    def __init__(self) -> None:
        self._spent = Spent()
        self._adversary = False

    @contextmanager
    def adversary(self) -> Iterator[None]:
        """What is run inside is the adversary's."""
        before, self._adversary = self._adversary, True
        try:
            yield
        finally:
            self._adversary = before

    def add_forward(self, shape: ModelShape | None, rows: Rows, *, layer: int = 0, lora_rank: int = 0) -> None:
        """One forward of the blocks from `layer` on."""
        if not self._adversary:
            self._spent.tokens += rows.tokens
            self._spent.supervised_tokens += rows.supervised
        cost = flops.forward(shape, rows, layer=layer, lora_rank=lora_rank) if shape is not None else 0.0
        if self._adversary:
            self._spent.flops_adversary += cost
        else:
            self._spent.flops_forward += cost

    def add_backward(
        self, shape: ModelShape | None, rows: Rows, kind: Backward, *, layer: int = 0, lora_rank: int = 0,
        checkpointing: bool = False,
    ) -> None:  # fmt: skip
        """The backward of a forward over the same rows; `layer` with Backward.activations, see `flops.backward`.

        Args:
            checkpointing: the blocks from `layer` on run again first.
        """
        if shape is None:
            return
        cost = flops.backward(shape, rows, kind, layer=layer, lora_rank=lora_rank)
        if checkpointing:
            cost += (shape.layers - layer) / shape.layers * flops.recompute(shape, rows, lora_rank=lora_rank)
        if self._adversary:
            self._spent.flops_adversary += cost
        else:
            self._spent.flops_backward += cost

    @property
    def of_adversary(self) -> bool:
        """Whether what is run now is the adversary's."""
        return self._adversary

    def take(self) -> Spent:
        """What was added since the last take."""
        spent, self._spent = self._spent, Spent()
        return spent


def peak_memory(device: str) -> int:
    """Most bytes that this process has held: allocated by torch on a GPU, else resident in host memory.

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
