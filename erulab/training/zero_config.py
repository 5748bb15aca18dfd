"""DeepSpeed's configuration, shared by the engine and the loader of sharded models."""

from __future__ import annotations

from typing import Any

import torch

from erulab.options import EngineName, EngineOptions, Offload, Precision
from erulab.training.engine import runs_in_bf16

# Smaller tensors stay whole under ZeRO-3: sharding a norm's weights costs more than it saves.
PERSISTENT = 10_000


def stage_of(options: EngineOptions) -> int:
    """Returns the ZeRO stage, 0 to 3, of an engine zero0 .. zero3."""
    return int(options.name.value.removeprefix("zero"))


def loads_sharded(options: EngineOptions) -> bool:
    """Tells whether weights are sharded as they are read, so that no process holds them all: under zero3 only."""
    return options.name is EngineName.zero3


def zero_config(options: EngineOptions, device: torch.device, precision: Precision) -> dict[str, Any]:
    """Returns DeepSpeed's configuration without the settings of one training (accumulation, clipping)."""
    stage, reduced = stage_of(options), runs_in_bf16(precision, device)
    zero: dict[str, Any] = {"stage": stage}
    # Pinned host memory is for copies to a GPU.
    pinned = {"pin_memory": device.type == "cuda"}
    if options.offload is not Offload.none:
        zero["offload_optimizer"] = {"device": options.offload.value, **pinned}
        if options.offload is Offload.nvme:
            zero["offload_optimizer"]["nvme_path"] = options.nvme_path
        if stage == 3:
            # Parameters stay in host memory even if the optimizer state, six times as large, is on a disk.
            zero["offload_param"] = {"device": "cpu", **pinned}
    if stage == 3:
        zero["stage3_param_persistence_threshold"] = PERSISTENT
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,  # only used in its log: the objective makes the batches
        "zero_optimization": zero,
    }
    if stage:
        config["bf16"] = {"enabled": reduced}
    elif reduced:
        # Nothing is sharded, so a bfloat16 copy would save no memory: weights stay in float32, as in the local engine.
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    return config
