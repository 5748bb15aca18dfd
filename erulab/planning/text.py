"""Writes a plan as text for people and as plain values for programs."""

from __future__ import annotations

import dataclasses
from typing import Any

from erulab.costs.devices import USABLE
from erulab.evaluation.external.base import ExternalBenchmark
from erulab.methods.base import FollowUp, GradientMethod, StandIn
from erulab.options import EngineName, EngineOptions, Offload, RunConfig, Stage
from erulab.planning.estimate import MOST_PROCESSES, Plan
from erulab.planning.rows import RowLengths
from erulab.registry import benchmarks, methods

PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "reference", "buffers", "loading", "peak")


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """Returns what `--format json` prints: bytes, FLOPs and hours as plain numbers."""
    return {
        "model": plan.config.model.name,
        "method": plan.config.method.name,
        "parameters": plan.shape.parameters,
        "engine": {
            "name": plan.engine.name.value,
            "nodes": plan.engine.nodes,
            "processes": plan.engine.processes,
            "offload": plan.engine.offload.value,
        },
        "device": {"name": plan.device.name, "memory": plan.device.memory, "usable": plan.available},
        "computes_in": plan.computes_in.value,
        "utilization": plan.utilization,
        "micro_batch": plan.micro_batch,
        "data": {
            "forget": _length_summary(plan.sizes.forget),
            "retain": _length_summary(plan.sizes.retain),
            "paired": _length_summary(plan.sizes.paired),
            "basis": plan.sizes.basis,
        },
        "memory": {name: dataclasses.asdict(memory) for name, memory in plan.memory.items()},
        "fits": plan.fits,
        "fits_on": plan.fits_on,
        "step_flops": None if plan.step is None else dataclasses.asdict(plan.step) | {"total": plan.step.total},
        "stages": [dataclasses.asdict(stage) for stage in plan.stages],
        "hours": plan.hours,
        "smallest": None if plan.smallest is None else dataclasses.asdict(plan.smallest),
        "warnings": plan.warnings,
    }


def _length_summary(part: RowLengths) -> dict[str, float]:
    return {
        "rows": part.rows,
        "tokens": part.tokens,
        "supervised": part.supervised,
        "longest": part.lengths.longest,
    }


def plan_as_text(plan: Plan) -> str:
    """Returns the tables that `--format text` prints, with the assumptions they rest on."""
    processes, device = plan.engine.world, plan.device
    config, sizes = plan.config, plan.sizes
    most = "up to " if config.trainer.micro_tokens is not None else ""
    hosts = f" on {plan.engine.nodes} hosts" if plan.engine.nodes > 1 else ""
    where = f"{processes} process{'es' * (processes > 1)}{hosts} on {'this ' if device.shared else ''}{device.name}"
    lines = [
        f"model       {config.model.name}, {plan.shape.parameters:,} parameters",
        f"run         method={config.method.name} reward={config.reward.name} adversary={config.adversary.name} "
        f"dataset={config.dataset.name}",
        f"engine      {plan.engine.name.value}, {where}, {plan.computes_in.value}" + _offloaded(plan.engine),
        f"batch       {config.trainer.global_batch} forget rows per step, "
        f"{most}{plan.micro_batch} per forward and process",
        f"data        {sizes.forget.rows} forget rows of {sizes.forget.tokens:.0f} tokens, "
        f"{sizes.forget.supervised:.0f} of them supervised; {sizes.retain.rows} retain rows of "
        f"{sizes.retain.tokens:.0f}",
        f"            {sizes.basis}",
    ]
    if plan.memory:
        lines += ["", *_memory_lines(plan)]
    if plan.step is not None:
        lines += ["", "FLOPs of one unlearning step, all processes", ""]
        parts = dataclasses.asdict(plan.step) | {"total": plan.step.total}
        lines += _aligned_columns([[name, f"{value:.3g}"] for name, value in parts.items() if value or name == "total"])
    if plan.stages:
        whose = "together" if device.shared else "each"
        lines += ["", f"hours at {plan.utilization:.0%} of {plan.tflops:g} TFLOP/s {whose}", ""]
        rows = [["training", "steps", "FLOPs", "hours"]]
        rows += [[s.name, str(s.steps) if s.steps else "", f"{s.flops:.3g}", _hours(s.hours)] for s in plan.stages]
        lines += _aligned_columns(
            [*rows, ["total", "", f"{sum(s.flops for s in plan.stages):.3g}", _hours(plan.hours)]]
        )
        lines += ["", f"not counted: {_not_counted(config)}"]
    else:
        lines += ["", "this run trains nothing"]
    if plan.warnings:
        lines += ["", *(f"warning: {warning}" for warning in plan.warnings)]
    return "\n".join(lines) + "\n"


def _not_counted(config: RunConfig) -> str:
    method, named = methods.build(config.method), f"method={config.method.name}"
    more = ""
    if Stage.unlearn in config.stages and not isinstance(method, GradientMethod | StandIn):
        more = f"; the {'distillation' if isinstance(method, FollowUp) else 'training'} of {named}"
    built = {name: benchmarks.build(options) for name, options in config.benchmark.items()}
    external = [name for name, one in built.items() if isinstance(one, ExternalBenchmark)]
    if external and Stage.evaluate in config.stages:
        more += f"; what {' and '.join(external)} asks the models"
    return f"scoring, generation and attacks, in memory and time; time to load and save{more}"


def _offloaded(engine: EngineOptions) -> str:
    if engine.offload is Offload.none:
        return ""
    place = "on a disk" if engine.offload is Offload.nvme else "in host memory"
    weights = ", weights in host memory" if engine.name is EngineName.zero3 else ""
    return f", optimizer state {place}{weights}"


def _memory_lines(plan: Plan) -> list[str]:
    rows = [["", *plan.memory]]
    for part in PARTS:
        values = [dataclasses.asdict(memory)[part] for memory in plan.memory.values()]
        if any(values):
            rows.append([part, *(_gigabytes(value) for value in values)])
    if not plan.device.shared:
        rows.append(["host memory", *(_gigabytes(memory.host) for memory in plan.memory.values())])
    unit = "process" if plan.device.shared else "GPU and process"
    smallest = plan.smallest
    least = f"none up to {MOST_PROCESSES} processes"
    if smallest is not None:
        host = "" if plan.device.shared else f", {_gigabytes(smallest.host)} GB of host memory in all"
        least = f"{' '.join(smallest.overrides)} ({_gigabytes(smallest.peak)} GB{host})"
    return [
        f"GB per {unit} (1e9 bytes); peak is the largest of several moments, not a sum",
        "",
        *_aligned_columns(rows),
        "",
        f"fits        {'yes' if plan.fits else 'NO'}: {_gigabytes(plan.available)} GB are there ({USABLE:.0%} of "
        f"{_gigabytes(plan.device.memory)})",
        *_cards_line(plan),
        f"smallest    {least}",
    ]


def _cards_line(plan: Plan) -> list[str]:
    if not plan.fits_on:
        return []
    answers = ", ".join(f"{size} GB {'yes' if fits else 'NO'}" for size, fits in plan.fits_on.items())
    each = ", for each process" if plan.engine.world > 1 else ""
    larger = plan.scoring > max(memory.peak for memory in plan.memory.values())
    scoring = f"; scoring holds {_gigabytes(plan.scoring)} GB of float32 weights" if larger else ""
    return [f"fits on     {answers}{each}{scoring}"]


def _aligned_columns(rows: list[list[str]]) -> list[str]:
    """Lays out rows in columns as wide as needed: the first aligned to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in pairs).rstrip()
        for pairs in (enumerate(zip(row, widths, strict=True)) for row in rows)
    ]


def _gigabytes(value: float) -> str:
    size = value / 1e9
    return f"{size:.1f}" if size >= 1 else f"{size:.3f}"


def _hours(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
