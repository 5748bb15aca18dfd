"""Estimates a whole run: parameters, memory, FLOPs, hours, and the smallest engine that fits the device."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from erulab.config import depth_rules, memory_rules, rules
from erulab.costs import flops
from erulab.costs.devices import USABLE, Device
from erulab.costs.memory import Memory
from erulab.costs.setup import NumberFormat
from erulab.costs.shapes import ModelShape
from erulab.costs.steps import StepFlops, step_flops
from erulab.errors import ConfigError, ErulabError
from erulab.launching import engine_choice
from erulab.methods.base import StandIn, forget_tokens_of, gradient_method
from erulab.methods.needs import ForgetTokens
from erulab.options import EngineName, EngineOptions, Offload, Precision, RunConfig, Stage
from erulab.planning.rows import DataSizes, Overrides, data_sizes
from erulab.planning.training import (
    forget_rows_per_forward,
    learned_stages,
    learning_gradients,
    learning_step,
    number_format,
    reference_rows,
    surprise_rows,
    training_memory,
    unlearning_gradients,
    unlearning_step,
)
from erulab.planning.unlearning import second_answers
from erulab.registry import methods, models, rewards
from erulab.training.batches import total_steps
from erulab.training.few_steps import notes_on_few_steps

MOST_PROCESSES = 64
CARDS = (24, 40, 80)  # GB of common GPUs
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class StageCost:
    """The cost of one training of the run, over all processes; `steps` is 0 for the reference table."""

    name: str
    steps: int
    flops: float
    hours: float


@dataclass(frozen=True)
class FittingEngine:
    """An engine with which the run fits the device."""

    overrides: tuple[str, ...]  # to type
    peak: float  # bytes on one device
    host: float  # bytes in host memory, over all processes


@dataclass(frozen=True)
class Plan:
    """The estimate of a run."""

    config: RunConfig
    shape: ModelShape
    sizes: DataSizes
    engine: EngineOptions
    device: Device
    utilization: float
    computes_in: NumberFormat
    micro_batch: int
    memory: dict[str, Memory]  # of "learning" and "unlearning"
    step: StepFlops | None  # one step of unlearning
    stages: list[StageCost]
    smallest: FittingEngine | None
    warnings: list[str]  # of trainings with too few steps, as the run gives them

    @property
    def tflops(self) -> float:
        """Returns the device's published peak in the format that the run computes in, TFLOP/s."""
        return _tflops(self.device, self.computes_in is not NumberFormat.fp32)

    @property
    def available(self) -> float:
        """Returns the bytes that one process can have."""
        return _available(self.device, self.engine.processes or 1)

    @property
    def fits(self) -> bool:
        return _peak(self.memory) <= self.available

    @property
    def scoring(self) -> float:
        """Returns the bytes of the whole float32 model that scoring and attacks hold; 0 if the run has neither."""
        scores = Stage.evaluate in self.config.stages or Stage.attack in self.config.stages
        return 4.0 * self.shape.parameters if scores else 0.0

    @property
    def fits_on(self) -> dict[int, bool]:
        """Returns for each size in CARDS whether trainings and a scored model fit a GPU of so many GB; {} for a CPU."""
        least = max(_peak(self.memory), self.scoring)
        return {} if self.device.shared else {size: least <= size * 1e9 * USABLE for size in CARDS}

    @property
    def hours(self) -> float:
        return sum(stage.hours for stage in self.stages)


def estimate(config: RunConfig, device: Device, utilization: float, overrides: Overrides) -> Plan:
    """Makes the plan of a run.

    Args:
        device: to run on.
        utilization: share of the device's published peak that the run reaches.
        overrides: sizes of the data that the user gives.
    Raises:
        ErulabError: the batches do not divide, an option names a layer beyond the depth, the model's sizes are not
            known, or the data cannot be read.
    """
    engine = engine_choice.choose_engine(config.engine, 0)
    processes = engine.world
    settled = replace(config, engine=engine)
    memory_rules.check_optimizer(settled)
    memory_rules.check_quantization(settled)
    rules.check_batches(config, processes)
    bf16 = _bf16(config, device)
    sizes, benchmark = data_sizes(config, second_answers(config), overrides, forget_tokens_of(config.method))
    shape = ModelShape.from_config(models.build(config.model).architecture(benchmark))
    step = None
    if gradient_method(config.method) is not None and Stage.unlearn in config.stages:
        depth_rules.check_layers(config, shape.layers)
        work = unlearning_step(config, sizes, shape.layers, processes)
        step = step_flops(shape, work, unlearning_gradients(config, shape))
    rate = _tflops(device, bf16) * 1e12 * utilization * (engine.nodes if device.shared else processes)
    stages = [
        StageCost(name, steps, cost, cost / rate / SECONDS_PER_HOUR)
        for name, steps, cost in _training_flops(config, shape, sizes, processes, step)
    ]
    return Plan(
        config,
        shape,
        sizes,
        engine,
        device,
        utilization,
        number_format(engine, bf16),
        forget_rows_per_forward(config, sizes, processes),
        training_memory(config, engine, shape, sizes, bf16, pages=not device.shared),
        step,
        stages,
        _smallest_fitting_engine(config, shape, sizes, device, bf16),
        _warnings(config, sizes),
    )


def _warnings(config: RunConfig, sizes: DataSizes) -> list[str]:
    rows = {Stage.target: sizes.target_rows, Stage.oracle: sizes.oracle_rows}
    learned = {stage.name: rows[stage] for stage in learned_stages(config)}
    unlearns = Stage.unlearn in config.stages and config.model.unlearned is None
    trains = unlearns and not isinstance(methods.build(config.method), StandIn)
    return notes_on_few_steps(config, learned, (sizes.requests or (sizes.forget.rows,)) if trains else ())


def _bf16(config: RunConfig, device: Device) -> bool:
    """Returns whether the run computes in bfloat16 on this device."""
    if config.trainer.precision is Precision.bf16 and device.bf16 is None and not device.shared:
        raise ConfigError(f"trainer.precision=bf16, which {device.name} cannot do; try trainer.precision=fp32")
    if config.trainer.precision is Precision.auto:
        return device.bf16 is not None
    return config.trainer.precision is Precision.bf16


def _training_flops(
    config: RunConfig, shape: ModelShape, sizes: DataSizes, processes: int, step: StepFlops | None
) -> Iterator[tuple[str, int, float]]:
    """Yields (name, optimizer steps, FLOPs) of each training."""
    options = config.target
    learning = step_flops(shape, learning_step(config, sizes, processes), learning_gradients(config, shape))
    for stage in learned_stages(config):
        rows = sizes.target_rows if stage is Stage.target else sizes.oracle_rows
        models = 1 if stage is Stage.target else len(config.oracles)
        steps = models * total_steps(rows, options.epochs, options.global_batch)
        yield stage.name, steps, steps * learning.total
    if step is None:
        return
    requests = sizes.requests or (sizes.forget.rows,)
    tables = sum(requests) / sizes.forget.rows
    if forget_tokens_of(config.method) is ForgetTokens.surprising:
        yield "surprise", 0, flops.forward(shape, surprise_rows(sizes)) * tables
    if config.reward.name != "none" and rewards.build(config.reward).needs_reference:
        yield "reference", 0, flops.forward(shape, reference_rows(config, sizes)) * tables
    trainer = config.trainer
    steps = sum(total_steps(rows, trainer.epochs, trainer.global_batch, trainer.steps) for rows in requests)
    yield "unlearn", steps, steps * step.total


def _smallest_fitting_engine(
    config: RunConfig, shape: ModelShape, sizes: DataSizes, device: Device, bf16: bool
) -> FittingEngine | None:
    """Searches for the fewest processes of one host with which the run fits.

    Among equally many processes it prefers what changes least: no offload, the user's batches, a low ZeRO stage.
    """
    for processes in (2**n for n in range(MOST_PROCESSES.bit_length())):
        for offload in (Offload.none, Offload.cpu):
            for changes in _batch_changes(config):
                for name in _engine_names(processes, offload):
                    engine = EngineOptions(name, processes, offload=offload)
                    changed = replace(config, engine=engine, **changes)
                    if not _can_run(changed, processes):
                        continue
                    found = training_memory(changed, engine, shape, sizes, bf16, pages=not device.shared)
                    if _peak(found) <= _available(device, processes):
                        host = max((part.host for part in found.values()), default=0.0)
                        return FittingEngine(_overrides_to_type(config, changed), _peak(found), host * processes)
    return None


def _batch_changes(config: RunConfig) -> Iterator[dict[str, Any]]:
    """Yields changes of the config: none, then gradient checkpointing, then one row at a time as well."""
    yield {}
    trainer, target = replace(config.trainer, checkpointing=True), config.target
    if not config.trainer.checkpointing:
        yield {"trainer": trainer}
    takes = config.reward.name != "none"
    if not (takes and rewards.build(config.reward).needs_whole_batch):
        one = replace(trainer, micro_batch=1, micro_tokens=None)
        yield {"trainer": one, "target": replace(target, micro_batch=1)}


def _engine_names(processes: int, offload: Offload) -> tuple[EngineName, ...]:
    """Returns the engines to try: one process gains nothing from sharding, but offloading needs DeepSpeed."""
    if offload is not Offload.none:
        return (EngineName.zero2, EngineName.zero3)
    return (EngineName.local,) if processes == 1 else (EngineName.zero1, EngineName.zero2, EngineName.zero3)


def _can_run(config: RunConfig, processes: int) -> bool:
    """Returns whether the engine takes the optimizer and the weights, and its processes divide the batches."""
    try:
        memory_rules.check_optimizer(config)
        memory_rules.check_quantization(config)
        rules.check_batches(config, processes)
    except ErulabError:
        return False
    return processes <= min(config.trainer.global_batch, config.target.global_batch)


def _overrides_to_type(config: RunConfig, changed: RunConfig) -> tuple[str, ...]:
    """Returns the overrides that turn `config` into `changed`."""
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
