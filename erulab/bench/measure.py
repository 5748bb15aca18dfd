"""Measures a piece of work on this machine: seconds, bytes, floating-point operations; and the machine's limit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

# The profiler would log its own start and end between the figures.
os.environ.setdefault("KINETO_LOG_LEVEL", "5")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MATRIX = 2048
REPEATS = 3


def seconds(work: Callable[[], object]) -> float:
    """Returns the wall time of one call."""
    _synchronize()
    started = time.perf_counter()
    work()
    _synchronize()
    return time.perf_counter() - started


def peak_bytes(work: Callable[[], object]) -> int:
    """Returns the most bytes that PyTorch's allocator held at once of those that `work` allocated.

    The allocator counts them, not the operating system: other processes, freed memory that a process keeps and
    everything allocated before do not count.
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
    """Returns the floating-point operations of the matrix products in `work`, 2 per multiply-add.

    PyTorch's counter does not count attention kernels on CPUs: a few per cent are missing there.
    """
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def matrix_limit() -> float:
    """Returns the FLOP/s of a product of two large float32 matrices, the best of a few."""
    a, b = torch.randn(MATRIX, MATRIX, device=DEVICE), torch.randn(MATRIX, MATRIX, device=DEVICE)
    return 2 * MATRIX**3 / min(seconds(lambda: a @ b) for _ in range(REPEATS))


def memory_bandwidth() -> float:
    """Returns the bytes per second at which a product with one vector reads a large float32 matrix, the best of a few.

    The matrix has 0.5 GB, more than a processor's cache holds.
    """
    matrix, vector = torch.ones(2**13, 2**14, device=DEVICE), torch.ones(2**14, device=DEVICE)
    return matrix.nbytes / min(seconds(lambda: matrix @ vector) for _ in range(REPEATS))


def _synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
