"""Gathers each parameter's float32 weight and its optimizer's moments from ZeRO 1-3, and puts them back.

DeepSpeed flattens many parameters into one tensor and partitions it over the ranks; the moments are partitioned the
same way. torch's AdamW makes them in its first step, so an engine that has not trained yet gets them here; SGD has
none. Other optimizers, whose state is not one number per weight, do not run under ZeRO 1-3 (`config/memory_rules.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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

from erulab.training.optimizers import STEP
from erulab.training.training_state import WEIGHT, StateReader

Named = Iterable[tuple[str, torch.nn.Parameter]]


def gather_states(
    named: Named, optimizer: Any, stage: int, moments: Sequence[str]
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Yields (name, kind -> whole tensor) of each parameter, gathered one at a time; all ranks must iterate to the end.

    Args:
        optimizer: DeepSpeed's, after at least one step.
        stage: 1 to 3.
        moments: names of the tensors in the optimizer's state.
    """
    if moments and stage < 3:
        _link_moments(optimizer)
    counted = {}
    if moments:
        counted[STEP] = optimizer.optimizer.state[_flat_parameters(optimizer, stage)[0]][STEP]
    for name, parameter in named:
        gathered = {kind: safe_get_full_optimizer_state(parameter, kind) for kind in moments}
        steps = {kind: value.clone() for kind, value in counted.items()}
        yield name, {WEIGHT: safe_get_full_fp32_param(parameter), **gathered, **steps}


def load_partitioned_states(
    named: Named, optimizer: Any, stage: int, moments: Sequence[str], reader: StateReader, rank: int
) -> None:
    """Sets the weight and state of every parameter; each rank reads the files and keeps its part.

    Args:
        optimizer: DeepSpeed's, of `stage` 1 to 3.
        moments: names of the tensors in the optimizer's state.
    """
    named = list(named)
    if moments:
        _make_moments(optimizer, stage, moments, max(reader.step(name) for name, _ in named))
    for name, parameter in named:
        kept = reader.state_of(name)
        found = {kind: kept[kind] for kind in moments if kind in kept}
        if stage == 3:
            safe_set_local_fp32_param(parameter, _partition(parameter, kept[WEIGHT], rank))
            for kind, value in found.items():
                safe_set_local_optimizer_state(parameter, _partition(parameter, value, rank), kind)
        else:
            safe_set_full_fp32_param(parameter, kept[WEIGHT])
            for kind, value in found.items():
                safe_set_full_optimizer_state(parameter, value, kind)
        # Forwards read another copy of the weights than the float32 one.
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=stage == 3), torch.no_grad():
            parameter.copy_(kept[WEIGHT])


def _flat_parameters(optimizer: Any, stage: int) -> list[torch.Tensor]:
    """Returns this rank's flat float32 parameters, by which the optimizer keeps its moments."""
    flat: list[torch.Tensor] = (
        optimizer.fp32_partitioned_groups_flat if stage == 3 else optimizer.single_partition_of_fp32_groups
    )
    return flat


def _make_moments(optimizer: Any, stage: int, moments: Sequence[str], step: torch.Tensor) -> None:
    for flat in _flat_parameters(optimizer, stage):
        optimizer.optimizer.state[flat] = {
            STEP: step.to(flat.device, copy=True),
            **{kind: torch.zeros_like(flat).detach() for kind in moments},
        }
    if stage < 3:
        _link_moments(optimizer)


def _link_moments(optimizer: Any) -> None:
    """Makes the moments known to the parameters of ZeRO 1 and 2.

    DeepSpeed does this after the first step of the first parameter group, when the other groups have none yet.
    """
    for group, flat in zip(optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups, strict=True):
        lazy_init_hp_params_optimizer_state(group, flat, optimizer.optimizer.state)


def _partition(parameter: Any, value: torch.Tensor, rank: int) -> torch.Tensor:
    """Returns this rank's elements of a whole tensor, padded to the size that all ranks have (ZeRO-3)."""
    size = parameter.ds_tensor.numel()
    part = value.flatten()[rank * size : (rank + 1) * size]
    return torch.nn.functional.pad(part, (0, size - part.numel()))
