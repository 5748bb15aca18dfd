"""Derives from a config what its trainings run: passes over rows for FLOPs, the largest micro-batch for memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from erulab.adversaries.balls import perturbed_layer
from erulab.adversaries.latent_pgd import LatentPGDOptions
from erulab.adversaries.rfa import Direction, RFAOptions
from erulab.costs.flops import TokenCounts
from erulab.costs.memory import Memory, MicroBatch, NumberFormat, Sharding, TrainingSetup, estimate_memory
from erulab.costs.shapes import Adapters, ModelShape
from erulab.costs.steps import Search, Step
from erulab.methods.base import Answer, ForgetTokens, Pairs, gradient_method
from erulab.methods.retain import Retain
from erulab.models.options import Attention, Quantization
from erulab.options import EngineName, EngineOptions, Offload, RunConfig, Stage
from erulab.planning.micro import (
    Group,
    expected_micro_batches,
    learning_split,
    rows_in_largest_micro_batch,
    unlearning_split,
)
from erulab.planning.quantiles import Quantiles
from erulab.planning.rows import DataSizes
from erulab.registry import models
from erulab.training.batches import Split

# Equal to that of erulab/training/unlearning_batches.py (a test compares them), which loads torch.
# This module must not.
GAIN_EVERY = 10


@dataclass(frozen=True)
class TrainedAnswers:
    """The kinds of rows that a method trains on; pairs and retain are `none` for a method without a forget loss."""

    descends: bool  # whether the method descends a loss on forget rows
    answer: Answer
    pairs: Pairs
    retain: Retain
    forget_tokens: ForgetTokens = ForgetTokens.all

    @classmethod
    def of(cls, config: RunConfig) -> TrainedAnswers:
        """Reads them from the config and its method."""
        method = gradient_method(config.method)
        if method is None:
            return cls(False, Answer.forget, Pairs.none, Retain.none)
        needs = method.needs
        pairs = Pairs.refusal if needs.answer is Answer.refusal else needs.pairs
        return cls(True, needs.answer, pairs, config.method.retain, config.method.forget_tokens)


def unlearning_step(config: RunConfig, sizes: DataSizes, layers: int, processes: int) -> Step:
    """Describes one optimizer step of unlearning, over all processes; padding is computed too.

    Of an adversary that is not erulab's own, only the measurement of its gain is counted.

    Args:
        layers: blocks of the model.
        processes: over all hosts.
    """
    answers = TrainedAnswers.of(config)
    cut = expected_micro_batches(
        _groups(answers, sizes), config.trainer.global_batch, unlearning_split(config), processes
    )
    micros = [micro for mine in cut for micro in mine]
    trained = _sum_counts(micro.rows for micro in micros)
    kl = _sum_counts(micro.of_group(1) for micro in micros) if answers.retain is Retain.kl else TokenCounts()
    prompts, search, measured, measured_search = TokenCounts(), None, TokenCounts(), None
    adversary = config.adversary
    if adversary.name != "none" and adversary.p > 0:
        # Each process measures on its first micro-batch.
        measured = _sum_counts(mine[0].alone(sizes.forget) for mine in cut).times(1 / GAIN_EVERY)
    if isinstance(adversary, RFAOptions) and adversary.p > 0:
        # Every process runs all prompts, so that all have the same directions without communication.
        estimates = processes * (1 - adversary.warmup) / adversary.every
        sides = [sizes.forget, sizes.retain] if adversary.direction is Direction.forget_minus_retain else [sizes.forget]
        for part in sides:
            (longest,) = part.prompts.padded(adversary.n, adversary.n)
            prompts += TokenCounts.of([longest] * adversary.n, 0.0).times(estimates)
    if isinstance(adversary, LatentPGDOptions) and adversary.p > 0:
        layer = perturbed_layer(adversary.layer, layers)
        searched = _sum_counts(micro.alone(sizes.forget) for micro in micros).times(adversary.p)
        search = Search(searched, adversary.steps, layer)
        measured_search = Search(measured, adversary.steps, layer)
    return Step(trained, kl, prompts, search, measured, measured_search)


def learning_step(config: RunConfig, sizes: DataSizes, processes: int) -> Step:
    """Describes one optimizer step of learning target or oracle, over all processes; all rows count as retain rows."""
    cut = expected_micro_batches([[sizes.retain]], config.target.global_batch, learning_split(config), processes)
    return Step(_sum_counts(micro.rows for mine in cut for micro in mine))


def reference_rows(config: RunConfig, sizes: DataSizes) -> TokenCounts:
    """Counts the tokens that the reference table runs once: forget rows and their paired answers, without padding."""
    answers = TrainedAnswers.of(config)
    parts = [sizes.forget]
    if answers.answer is Answer.forget and answers.pairs is not Pairs.none:
        parts.append(sizes.paired)
    total = TokenCounts()
    for part in parts:
        total += TokenCounts.of([part.tokens] * part.rows, part.supervised * part.rows)
    return total


def surprise_rows(sizes: DataSizes) -> TokenCounts:
    """Counts the tokens that the search for surprising tokens runs once: the forget rows, without padding."""
    part = sizes.forget
    return TokenCounts.of([part.tokens] * part.rows, part.supervised * part.rows)


def _groups(answers: TrainedAnswers, sizes: DataSizes) -> list[Group]:
    """Returns the groups of one forward: answers with their paired answers, then as many retain rows."""
    group = [sizes.paired if answers.answer is Answer.refusal else sizes.forget]
    if answers.answer is Answer.forget and answers.pairs is not Pairs.none:
        group.append(sizes.paired)
    return [group] if answers.retain is Retain.none else [group, [sizes.retain]]


def _sum_counts(rows: Iterable[TokenCounts]) -> TokenCounts:
    return reduce(add, rows, TokenCounts())


def forget_rows_per_forward(config: RunConfig, sizes: DataSizes, processes: int) -> int:
    """Returns the forget rows of one process's forward; of the largest one, where trainer.micro_tokens cuts."""
    split = unlearning_split(config)
    return rows_in_largest_micro_batch(
        _groups(TrainedAnswers.of(config), sizes), config.trainer.global_batch, split, processes
    )


def trained_adapters(config: RunConfig) -> Adapters:
    """Returns the adapters that unlearning trains; learning target and oracle trains none."""
    trained: Adapters = config.model.lora.adapters
    return trained


def number_format(engine: EngineOptions, bf16: bool) -> NumberFormat:
    """Returns the formats an engine computes in: in bf16, weights that nothing shards stay in float32."""
    if not bf16:
        return NumberFormat.fp32
    whole = engine.name in (EngineName.local, EngineName.zero0)
    return NumberFormat.autocast if whole else NumberFormat.bf16


def training_memory(
    config: RunConfig, engine: EngineOptions, shape: ModelShape, sizes: DataSizes, bf16: bool, *, pages: bool
) -> dict[str, Memory]:
    """Estimates the memory of each training in the run.

    Args:
        engine: with its name and processes settled, never `auto`.
        bf16: whether the run computes in bfloat16.
        pages: whether a paged optimizer's state can leave the device, as on GPUs.
    Returns:
        "learning" (target or oracle) and "unlearning", where the run has them.
    """
    stage = None if engine.name is EngineName.local else int(engine.name.value.removeprefix("zero"))
    answers = TrainedAnswers.of(config)
    sharding = Sharding(stage, engine.world, engine.offload is not Offload.none, engine.offload is Offload.nvme)
    common = TrainingSetup(
        number_format(engine, bf16),
        sharding,
        config.trainer.checkpointing,
        eager_attention=config.model.attention is Attention.eager,
    )
    found = {}
    if learned_stages(config):
        # Only the weights of a folder are read sharded; a model that is made or unpacked from a package begins whole.
        whole = stage != 3 or models.build(config.model).folder is None
        both = replace(
            sizes.retain,
            lengths=Quantiles.constant(max(sizes.forget.lengths.longest, sizes.retain.lengths.longest)),
            longest_supervised=max(sizes.forget.longest_supervised, sizes.retain.longest_supervised),
        )
        micro = _largest_micro_batch([[both]], config.target.global_batch, learning_split(config), engine.world)
        found["learning"] = estimate_memory(shape, micro, replace(common, loads_whole=whole))
    if answers.descends and Stage.unlearn in config.stages:
        kl = answers.retain is Retain.kl
        groups = _groups(answers, sizes)
        micro = _largest_micro_batch(groups, config.trainer.global_batch, unlearning_split(config), engine.world, kl=kl)
        setup = replace(
            common,
            adapters=trained_adapters(config),
            quantized=config.model.lora.quantize is not Quantization.none,
            optimizer=config.trainer.optimizer,
            pages=pages,
            frozen_copy=kl,
            loads_whole=stage != 3,
        )
        found["unlearning"] = estimate_memory(shape, micro, setup)
    return found


def learned_stages(config: RunConfig) -> list[Stage]:
    """Returns the stages of this run that fine-tune the base model."""
    given = {Stage.target: config.model.target, Stage.oracle: config.model.oracle}
    return [stage for stage in given if stage in config.stages and given[stage] is None]


def _largest_micro_batch(
    groups: list[Group], size: int, split: Split, processes: int, *, kl: bool = False
) -> MicroBatch:
    """Returns the micro-batch of the longest rows: rows of similar length run together, so the longest ones meet."""
    rows = rows_in_largest_micro_batch(groups, size, split, processes)
    parts = [part for group in groups for part in group]
    return MicroBatch(
        rows * len(parts),
        max(part.lengths.longest for part in parts),
        rows * sum(part.longest_supervised for part in parts),
        kl_supervised=rows * parts[-1].longest_supervised if kl else 0.0,
        alone=rows * processes >= size,
    )
