"""Devices to plan for: their memory, and published peaks of dense matrix products."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil

# Share of a GPU's memory that is left beside the driver, the workspaces of libraries and fragmentation.
USABLE = 0.93

# A guess, for the order of magnitude only: a core of 3 GHz with AVX2 reaches 0.096 TFLOP/s at most.
CPU_CORE_TFLOPS = 0.05


@dataclass(frozen=True)
class Device:
    """A device with its memory and peaks."""

    name: str
    memory: float  # bytes
    bf16: float | None  # TFLOP/s; None: no bfloat16, so erulab trains in float32
    fp32: float  # TFLOP/s, not those of TF32, which PyTorch leaves off
    shared: bool = False  # whether all processes share one device (a CPU) instead of having one each


# From NVIDIA's data sheets (SXM where there are several forms), without sparsity; bf16 with float32 accumulation.
# Written from memory: not checked against the data sheets since.
GPUS = {
    gpu.name: gpu
    for gpu in (
        Device("a100-40gb", 40e9, 312.0, 19.5),
        Device("a100-80gb", 80e9, 312.0, 19.5),
        Device("h100-80gb", 80e9, 989.4, 66.9),
        Device("h200", 141e9, 989.4, 66.9),
        Device("l40s", 48e9, 362.0, 91.6),
        Device("rtx4090", 24e9, 165.2, 82.6),
        Device("v100-32gb", 32e9, None, 15.7),
    )
}
NAMES = (*GPUS, "cpu")


def find_device(name: str) -> Device:
    """Returns the device of a name; `cpu` is this machine with its cores and memory.

    Raises:
        KeyError: the name is not in `NAMES`.
    """
    if name == "cpu":
        cores = len(os.sched_getaffinity(0))
        return Device("cpu", float(psutil.virtual_memory().total), None, cores * CPU_CORE_TFLOPS, shared=True)
    return GPUS[name]
