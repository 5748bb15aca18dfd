"""The optimizers of `trainer.optimizer`: how each is built, and which state each keeps per parameter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from erulab.models.policy import Policy
from erulab.options import OptimizerName
from erulab.training.engine import parameter_groups

# The number of updates in a parameter's state.
STEP = "step"
# The tensors of a parameter's state, besides STEP.
MOMENTS: dict[OptimizerName, tuple[str, ...]] = {
    OptimizerName.adamw: ("exp_avg", "exp_avg_sq"),
    # Codes of 8 bits and the scale of each block of codes; small parameters have moments in float32.
    OptimizerName.adamw_8bit: ("state1", "state2", "absmax1", "absmax2"),
    OptimizerName.paged_adamw_8bit: ("state1", "state2", "absmax1", "absmax2"),
    # Sums over rows and columns of a matrix; the whole second moment of a vector.
    OptimizerName.adafactor: ("exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_sq"),
    OptimizerName.sgd: (),
}


def build_optimizer(name: OptimizerName, policy: Policy, weight_decay: float) -> torch.optim.Optimizer:
    """Builds an optimizer of the trained parameters; the engine sets its learning rate before each step."""
    groups = [group for group in parameter_groups(policy, weight_decay) if group["params"]]
    if name is OptimizerName.adamw:
        return torch.optim.AdamW(groups, lr=0.0, fused=True)
    if name is OptimizerName.sgd:
        # Fused, because otherwise the decayed gradients of all parameters would be held at once. Without momentum, the
        # weight decay that SGD adds to the gradient is the decoupled one.
        return torch.optim.SGD(groups, lr=0.0, fused=True)
    if name is OptimizerName.adafactor:
        # Not torch's own: its rate is relative to each parameter's size, so trainer.lr would have another unit.
        from transformers.optimization import Adafactor

        return Adafactor(groups, lr=0.0, scale_parameter=False, relative_step=False)
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit  # optional: only for the optimizers in 8 bits

    built: torch.optim.Optimizer = (PagedAdamW8bit if name is OptimizerName.paged_adamw_8bit else AdamW8bit)(groups)
    return built


def restore_states(
    name: OptimizerName,
    optimizer: torch.optim.Optimizer,
    states: Iterable[tuple[torch.nn.Parameter, dict[str, torch.Tensor]]],
) -> None:
    """Puts saved states back into an optimizer that has not trained yet.

    Args:
        name: of the optimizer.
        optimizer: as `build_optimizer` gives it.
        states: (parameter, kind -> tensor); a parameter that never had a gradient has no tensors.
    """
    places = {p: (group, i, j) for i, group in enumerate(optimizer.param_groups) for j, p in enumerate(group["params"])}
    for parameter, kept in states:
        if not kept:
            continue
        moments = {kind: value for kind, value in kept.items() if kind != STEP}
        if name.in_8_bits:
            _restore_8_bits(optimizer, parameter, *places[parameter], moments, int(kept[STEP]))
        elif name is OptimizerName.adamw:
            # torch's fused AdamW keeps its step count on the parameter's device, and its moments in the parameter's
            # type.
            optimizer.state[parameter] = {
                kind: value.to(parameter.device, torch.float32 if kind == STEP else parameter.dtype)
                for kind, value in kept.items()
            }
        else:
            placed = {kind: value.to(parameter.device) for kind, value in moments.items()}
            optimizer.state[parameter] = {STEP: int(kept[STEP]), **placed}


def _restore_8_bits(
    optimizer: Any,
    parameter: torch.nn.Parameter,
    group: dict[str, Any],
    group_index: int,
    index: int,
    moments: dict[str, torch.Tensor],
    step: int,
) -> None:
    # bitsandbytes makes the tensors itself: those of a paged optimizer lie in memory that moves between GPU and host.
    optimizer.init_state(group, parameter, group_index, index)
    state = optimizer.state[parameter]
    for kind, value in moments.items():
        state[kind].copy_(value)
    state[STEP] = step
