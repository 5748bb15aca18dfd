"""The whole estimate of a run: parameters, memory, FLOPs, hours, and the smallest engine that fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from erulab.config import rules
from erulab.costs import flops
from erulab.costs.devices import USABLE, Device
from erulab.costs.memory import Memory, Numbers
from erulab.costs.shapes import ModelShape
from erulab.costs.steps import StepFlops, step_flops
from erulab.errors import ConfigError, ErulabError
from erulab.launching import workers
from erulab.options import EngineName, EngineOptions, Offload, Precision, RunConfig, Stage
from erulab.planning.rows import DataSizes, Overrides, data_sizes
from erulab.planning.training import (
    Answers,
    adapters,
    learning_step,
    learns,
    memories,
    micro_batch,
    numbers,
    reference_rows,
    unlearning_step,
    unlearns,
)
from erulab.registry import models, rewards
from erulab.training.batches import total_steps

MOST_PROCESSES = 64
SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class StageCost:
    """One training of the run, over all processes. The reference table has no steps."""

    name: str
    steps: int
    flops: float
    hours: float


@dataclass(frozen=True)
class Fit:
    """An engine that fits the device, as overrides to type, with its peak in bytes, and those in host memory
    over all processes."""

    overrides: tuple[str, ...]
    peak: float
    host: float


@dataclass(frozen=True)
class Plan:
    """What a run will take. `memory`: of each training it holds; `step`: FLOPs of one unlearning step."""

    config: RunConfig
    shape: ModelShape
    sizes: DataSizes
    engine: EngineOptions
    device: Device
    utilization: float
    computes_in: Numbers
    micro_batch: int
    memory: dict[str, Memory]
    step: StepFlops | None
    stages: list[StageCost]
    smallest: Fit | None

    @property
    def tflops(self) -> float:
        """The device's published peak in the type that the run computes in."""
        return _tflops(self.device, self.computes_in is not Numbers.fp32)

    @property
    def available(self) -> float:
        """Bytes that one process can have."""
        return _available(self.device, self.engine.processes or 1)

    @property
    def fits(self) -> bool:
        return _peak(self.memory) <= self.available

    @property
    def hours(self) -> float:
        return sum(stage.hours for stage in self.stages)


def estimate(config: RunConfig, device: Device, utilization: float, overrides: Overrides) -> Plan:
    """The plan of a run on `device`, at `utilization` of its published peak.

    Raises:
        ErulabError: the batches do not divide, the model's sizes are not known, or the data cannot be read.
    """
    engine = workers.choose_engine(config.engine, 0)
    processes = engine.world
    rules.check_batches(config, processes)
    bf16 = _bf16(config, device)
    answers = Answers.of(config)
    sizes, benchmark = data_sizes(config, answers.pairs, overrides)
    shape = ModelShape.from_config(models.build(config.model).architecture(benchmark))
    step = None
    if unlearns(answers.trains) and Stage.unlearn in config.stages:
        step = step_flops(
            shape,
            unlearning_step(config, sizes, shape.layers, processes),
            checkpointing=config.trainer.checkpointing,
            adapters=adapters(config),
        )
    rate = _tflops(device, bf16) * 1e12 * utilization * (engine.nodes if device.shared else processes)
    stages = [
        StageCost(name, steps, cost, cost / rate / SECONDS_AN_HOUR)
        for name, steps, cost in _costs(config, shape, sizes, processes, step)
    ]
    return Plan(
        config,
        shape,
        sizes,
        engine,
        device,
        utilization,
        numbers(engine, bf16),
        micro_batch(config, sizes, processes),
        memories(config, engine, shape, sizes, bf16),
        step,
        stages,
        _smallest(config, shape, sizes, device, bf16),
    )


def _bf16(config: RunConfig, device: Device) -> bool:
    """Whether the run would compute in bfloat16 there."""
    if config.trainer.precision is Precision.bf16 and device.bf16 is None and not device.shared:
        raise ConfigError(f"trainer.precision=bf16, which {device.name} cannot do; try trainer.precision=fp32")
    if config.trainer.precision is Precision.auto:
        return device.bf16 is not None
    return config.trainer.precision is Precision.bf16


def _costs(
    config: RunConfig, shape: ModelShape, sizes: DataSizes, processes: int, step: StepFlops | None
) -> Iterator[tuple[str, int, float]]:
    """(name, optimizer steps, FLOPs) of each training."""
    options = config.target
    learning = step_flops(shape, learning_step(config, sizes, processes), checkpointing=config.trainer.checkpointing)
    for stage in learns(config):
        rows = sizes.target_rows if stage is Stage.target else sizes.oracle_rows
        steps = total_steps(rows, options.epochs, options.global_batch)
        yield stage.name, steps, steps * learning.total
    if step is None:
        return
    requests = sizes.requests or (sizes.forget.rows,)
    if config.reward.name != "none" and rewards.build(config.reward).needs_reference:
        again = sum(requests) / sizes.forget.rows
        yield "reference", 0, flops.forward(shape, reference_rows(config, sizes)) * again
    trainer = config.trainer
    steps = sum(total_steps(rows, trainer.epochs, trainer.global_batch, trainer.steps) for rows in requests)
    yield "unlearn", steps, steps * step.total


def _smallest(config: RunConfig, shape: ModelShape, sizes: DataSizes, device: Device, bf16: bool) -> Fit | None:
    """The fewest processes of one host that fit.

    For as many, what changes least: no offload, the user's batches, a low stage.
    """
    for processes in (2**n for n in range(MOST_PROCESSES.bit_length())):
        for offload in (Offload.none, Offload.cpu):
            for changes in _changes(config):
                for name in _engines(processes, offload):
                    engine = EngineOptions(name, processes, offload=offload)
                    changed = replace(config, engine=engine, **changes)
                    if not _divides(changed, processes):
                        continue
                    found = memories(changed, engine, shape, sizes, bf16)
                    if _peak(found) <= _available(device, processes):
                        host = max((part.host for part in found.values()), default=0.0)
                        return Fit(_typed(config, changed), _peak(found), host * processes)
    return None


def _changes(config: RunConfig) -> Iterator[dict[str, Any]]:
    """The user's batches, then the same with checkpointing, then one row at a time."""
    yield {}
    trainer, target = replace(config.trainer, checkpointing=True), config.target
    if not config.trainer.checkpointing:
        yield {"trainer": trainer}
    takes = config.reward.name != "none"
    if not (takes and rewards.build(config.reward).needs_whole_batch):
        one = replace(trainer, micro_batch=1, micro_tokens=None)
        yield {"trainer": one, "target": replace(target, micro_batch=1)}


def _engines(processes: int, offload: Offload) -> tuple[EngineName, ...]:
    """Alone, sharding saves nothing, but offloading needs it."""
    if offload is not Offload.none:
        return (EngineName.zero2, EngineName.zero3)
    return (EngineName.local,) if processes == 1 else (EngineName.zero1, EngineName.zero2, EngineName.zero3)


def _divides(config: RunConfig, processes: int) -> bool:
    try:
        rules.check_batches(config, processes)
    except ErulabError:
        return False
    return processes <= min(config.trainer.global_batch, config.target.global_batch)


def _typed(config: RunConfig, changed: RunConfig) -> tuple[str, ...]:
    """What to type to get `changed`."""
    engine = changed.engine
    offloads = engine.offload is not Offload.none
    preset = offloads and engine.name is EngineName.zero3
    words = ["engine=zero3_offload" if preset else f"engine={engine.name.value}"]
    if engine.name is not EngineName.local:
        words.append(f"engine.processes={engine.processes}")
    if offloads and not preset:
        words.append(f"engine.offload={engine.offload.value}")
    for part in ("trainer", "target"):
        before, after = vars(getattr(config, part)), vars(getattr(changed, part))
        words += [f"{part}.{key}={json.dumps(value)}" for key, value in after.items() if value != before[key]]
    return tuple(words)


def _tflops(device: Device, bf16: bool) -> float:
    return device.bf16 if bf16 and device.bf16 is not None else device.fp32


def _peak(found: dict[str, Memory]) -> float:
    return max((part.peak for part in found.values()), default=0.0)


def _available(device: Device, processes: int) -> float:
    return device.memory * USABLE / (processes if device.shared else 1)
