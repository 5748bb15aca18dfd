"""What a run has really cost: FLOPs by the closed forms, seconds by stage, peak memory."""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lazy_loader

from erulab.costs import flops
from erulab.costs.flops import Backward, Rows
from erulab.costs.shapes import ModelShape
from erulab.errors import EnvironmentFault

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


class Ledger:
    """Adds up what one process runs. Sums over processes are the caller's (peak memory: the maximum)."""

    def __init__(self, shape: ModelShape, *, lora_rank: int = 0) -> None:
        self._shape, self._lora_rank = shape, lora_rank
        self._tokens = self._supervised = self._prompts = 0
        self._forward = self._backward = self._adversary = 0.0
        self._seconds: dict[str, float] = {}

    def add_forward(
        self, lengths: Sequence[int], supervised: int, *, prompts: int = 0, adversary: bool = False
    ) -> None:
        """One forward.

        Args:
            lengths: of all rows as they are computed, padding included.
            supervised: positions of all rows that reach the head.
            prompts: how many of the rows are prompts alone, run for their states.
            adversary: run by the adversary and not for the loss: it counts as `flops_adversary` only.
        """
        cost = flops.forward(self._shape, Rows.of(lengths, supervised), lora_rank=self._lora_rank)
        self._prompts += prompts
        if adversary:
            self._adversary += cost
            return
        self._tokens += sum(lengths)
        self._supervised += supervised
        self._forward += cost

    def add_backward(
        self, lengths: Sequence[int], supervised: int, kind: Backward, *, layer: int = 0, adversary: bool = False
    ) -> None:
        """The backward of a forward over the same rows; `layer` with Backward.activations, see `flops.backward`."""
        rows = Rows.of(lengths, supervised)
        cost = flops.backward(self._shape, rows, kind, layer=layer, lora_rank=self._lora_rank)
        if adversary:
            self._adversary += cost
        else:
            self._backward += cost

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds spent inside to `stage`, also when it fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add_seconds(stage, time.perf_counter() - started)

    def add_seconds(self, stage: str, seconds: float) -> None:
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def summary(self, device: str = "cpu") -> dict[str, Any]:
        """What was added so far, and the peak memory of this process on `device` ("cpu", "cuda", "cuda:1")."""
        return {
            "tokens": self._tokens,
            "supervised_tokens": self._supervised,
            "prompts": self._prompts,
            "flops_forward": self._forward,
            "flops_backward": self._backward,
            "flops_adversary": self._adversary,
            "seconds": dict(self._seconds),
            "peak_memory_bytes": peak_memory(device),
        }


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
