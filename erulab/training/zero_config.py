"""What DeepSpeed is told, by the engine and by the loader of sharded models alike."""

from __future__ import annotations

from typing import Any

import torch

from erulab.options import EngineName, EngineOptions, Offload, Precision
from erulab.training.engine import bf16

# Smaller tensors stay whole under ZeRO-3: sharding a norm's weights costs more than it saves.
PERSISTENT = 10_000


def stage_of(options: EngineOptions) -> int:
    """0 to 3."""
    return int(options.name.value.removeprefix("zero"))


def loads_sharded(options: EngineOptions) -> bool:
    """Whether a folder's weights must never lie whole on a process: always under zero3, never elsewhere."""
    return options.name is EngineName.zero3


def zero_config(options: EngineOptions, device: torch.device, precision: Precision) -> dict[str, Any]:
    """DeepSpeed's configuration without what belongs to one training (batch, clipping)."""
    stage, reduced = stage_of(options), bf16(precision, device)
    zero: dict[str, Any] = {"stage": stage}
    # Pinned host memory is for copies to a GPU.
    pinned = {"pin_memory": device.type == "cuda"}
    if options.offload is not Offload.none:
        zero["offload_optimizer"] = {"device": options.offload.value, **pinned}
        if options.offload is Offload.nvme:
            zero["offload_optimizer"]["nvme_path"] = options.nvme_path
        if stage == 3:
            # In host memory also where the optimizer is on a disk: its state is six times as large.
            zero["offload_param"] = {"device": "cpu", **pinned}
    if stage == 3:
        zero["stage3_param_persistence_threshold"] = PERSISTENT
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed only logs by it: batches are made by the objective
        "zero_optimization": zero,
    }
    if stage:
        config["bf16"] = {"enabled": reduced}
    elif reduced:
        # Nothing is sharded, so a bfloat16 copy would save no memory: as in the local engine, weights stay float32.
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    return config
