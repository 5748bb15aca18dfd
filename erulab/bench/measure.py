"""What a piece of work costs here: seconds, bytes, floating-point operations, and what the machine can do at most."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

# The profiler would report its own start and end among the figures.
os.environ.setdefault("KINETO_LOG_LEVEL", "5")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MATRIX = 2048
REPEATS = 3


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    _wait()
    started = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - started


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that PyTorch's allocator held at once of what `work` allocated.

    Counted by the allocator itself, not by the operating system: other processes, freed memory that a process keeps
    and everything allocated before play no part.
    """
    if DEVICE.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in `work` (2 a multiply-add).

    PyTorch's counter knows no attention kernels of CPUs: a few per cent are missing there.
    """
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def matrix_limit() -> float:
    """FLOP/s of a product of two large float32 matrices: the best of a few."""
    a, b = torch.randn(MATRIX, MATRIX, device=DEVICE), torch.randn(MATRIX, MATRIX, device=DEVICE)
    return 2 * MATRIX**3 / min(seconds(lambda: a @ b) for _ in range(REPEATS))


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
