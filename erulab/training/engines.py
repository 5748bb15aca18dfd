"""Builds the engine that `engine.name` chooses."""

from __future__ import annotations

from erulab.models.policy import Policy
from erulab.options import EngineName, EngineOptions, OptimizerName, Precision
from erulab.ranks import Ranks
from erulab.training.engine import Engine
from erulab.training.local import LocalEngine


def build_engine(
    policy: Policy,
    options: EngineOptions,
    ranks: Ranks,
    *,
    weight_decay: float,
    clip: float,
    precision: Precision,
    optimizer: OptimizerName = OptimizerName.adamw,
) -> Engine:
    """Builds the engine that `options.name` names.

    Args:
        policy: on this rank's device.
        clip: gradient norm; 0: no clipping.
    """
    if options.name in (EngineName.auto, EngineName.local):
        return LocalEngine(policy, weight_decay=weight_decay, clip=clip, precision=precision, optimizer=optimizer)
    # DeepSpeed takes seconds to import, and only Linux has it.
    from erulab.training.zero import ZeroEngine

    return ZeroEngine(
        policy, ranks, options, weight_decay=weight_decay, clip=clip, precision=precision, optimizer=optimizer
    )
