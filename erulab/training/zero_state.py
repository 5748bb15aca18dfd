"""A parameter's float32 weight and Adam statistics, whole, out of and into what ZeRO 1-3 keeps of them.

The statistics lie in flat tensors that DeepSpeed makes of many parameters and cuts over the ranks; torch's AdamW makes
them in its first step only, so that an engine that has not trained yet gets them here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import deepspeed
import torch
from deepspeed.utils import (
    lazy_init_hp_params_optimizer_state,
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)

from erulab.training.training_state import MOMENTS, STEP, WEIGHT, StateReader

Named = Iterable[tuple[str, torch.nn.Parameter]]


def states(named: Named, optimizer: Any, stage: int) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Every parameter's state, gathered one at a time: all ranks must take all of them.

    Args:
        optimizer: DeepSpeed's, of `stage` 1 to 3, after at least one step.
    """
    if stage < 3:
        _link(optimizer)
    step = optimizer.optimizer.state[_flat(optimizer, stage)[0]][STEP]
    for name, parameter in named:
        moments = {kind: safe_get_full_optimizer_state(parameter, kind) for kind in MOMENTS}
        yield name, {WEIGHT: safe_get_full_fp32_param(parameter), **moments, STEP: step.clone()}


def load_states(named: Named, optimizer: Any, stage: int, reader: StateReader, rank: int) -> None:
    """Sets every parameter's weight and state; each rank reads the files and keeps its part."""
    named = list(named)
    _make_statistics(optimizer, stage, max(reader.step(name) for name, _ in named))
    for name, parameter in named:
        kept = reader.of(name)
        moments = {kind: kept[kind] for kind in MOMENTS if kind in kept}
        if stage == 3:
            safe_set_local_fp32_param(parameter, _part(parameter, kept[WEIGHT], rank))
            for kind, value in moments.items():
                safe_set_local_optimizer_state(parameter, _part(parameter, value, rank), kind)
        else:
            safe_set_full_fp32_param(parameter, kept[WEIGHT])
            for kind, value in moments.items():
                safe_set_full_optimizer_state(parameter, value, kind)
        # The weights that forwards read are another copy of the float32 ones.
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=stage == 3), torch.no_grad():
            parameter.copy_(kept[WEIGHT])


def _flat(optimizer: Any, stage: int) -> list[torch.Tensor]:
    """This rank's flat float32 parameters, which the statistics are kept of."""
    flat: list[torch.Tensor] = (
        optimizer.fp32_partitioned_groups_flat if stage == 3 else optimizer.single_partition_of_fp32_groups
    )
    return flat


def _make_statistics(optimizer: Any, stage: int, step: torch.Tensor) -> None:
    for flat in _flat(optimizer, stage):
        optimizer.optimizer.state[flat] = {
            STEP: step.to(flat.device, copy=True),
            **{kind: torch.zeros_like(flat).detach() for kind in MOMENTS},
        }
    if stage < 3:
        _link(optimizer)


def _link(optimizer: Any) -> None:
    """Tells the parameters of ZeRO 1 and 2 where their statistics lie.

    DeepSpeed does so after the first parameter group's first step, when the other groups have none yet.
    """
    for group, flat in zip(optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups, strict=True):
        lazy_init_hp_params_optimizer_state(group, flat, optimizer.optimizer.state)


def _part(parameter: Any, value: torch.Tensor, rank: int) -> torch.Tensor:
    """This rank's elements of a whole tensor, padded to the size that all ranks have (ZeRO-3)."""
    size = parameter.ds_tensor.numel()
    part = value.flatten()[rank * size : (rank + 1) * size]
    return torch.nn.functional.pad(part, (0, size - part.numel()))
