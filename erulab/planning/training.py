"""Derives from a config what its trainings run: passes over rows for FLOPs, the largest micro-batch for memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from operator import add

from erulab.adversaries.balls import perturbed_layer
from erulab.adversaries.latent_pgd import LatentPGDOptions
from erulab.adversaries.rfa import Direction, RFAOptions
from erulab.adversaries.sam import SAMOptions
from erulab.costs.backward import Gradients
from erulab.costs.flops import TokenCounts
from erulab.costs.gradient_copies import GradientCopies
from erulab.costs.memory import Memory, estimate_memory
from erulab.costs.passes import Pass
from erulab.costs.setup import MicroBatch, NumberFormat, Reads, Sharding, TrainingSetup
from erulab.costs.shapes import NO_ADAPTERS, Adapters, ModelShape
from erulab.costs.steps import Search, Step
from erulab.costs.trained import trained_weights, weight_shapes
from erulab.methods.base import gradient_method
from erulab.methods.needs import Pairs
from erulab.models.options import Attention, Quantization
from erulab.models.request import ForwardRequest, PartRequest
from erulab.options import EngineName, EngineOptions, Offload, RunConfig, Stage
from erulab.planning.micro import (
    RowGroup,
    expected_micro_batches,
    learning_split,
    rows_in_largest_micro_batch,
    unlearning_split,
)
from erulab.planning.quantiles import Quantiles
from erulab.planning.rows import DataSizes
from erulab.planning.unlearning import (
    ForwardKind,
    compared_answers,
    forward_kinds,
    gradient_copies,
    relearned_rows,
    takes_gradients_apart,
    trained_names,
)
from erulab.registry import models
from erulab.training.batches import Split

# Equal to that of erulab/training/unlearning_batches.py (a test compares them), which loads torch.
# This module must not.
GAIN_EVERY = 10


def unlearning_step(config: RunConfig, sizes: DataSizes, layers: int, processes: int) -> Step:
    """Describes one optimizer step of unlearning, over all processes; padding is computed too.

    Of an adversary that is not erulab's own, only the measurement of its gain is counted.

    Args:
        layers: blocks of the model.
        processes: over all hosts.
    """
    kinds, adversary = forward_kinds(config, sizes, layers), config.adversary
    cuts = [expected_micro_batches(kind.groups, unlearning_split(config), processes) for kind in kinds]
    passes = [
        reduce(add, (kind.expected_pass(micro) for mine in cut for micro in mine))
        for kind, cut in zip(kinds, cuts, strict=True)
    ]
    if isinstance(adversary, SAMOptions) and adversary.rho:
        passes.append(replace(passes[0], of_adversary=True))
    relearned = relearned_rows(config, sizes)
    if relearned is not None:
        cut = expected_micro_batches([relearned], unlearning_split(config), processes)
        rows = _sum_counts(micro.rows for mine in cut for micro in mine)
        more = adversary.steps // adversary.every - 1  # forget gradients beside the one of every training
        passes.append(Pass(rows.times(adversary.steps), of_adversary=True))
        passes += [replace(passes[0], of_adversary=True)] * more
    with_forget_rows = cuts[0]
    prompts, search, measured, measured_search = TokenCounts(), None, TokenCounts(), None
    if adversary.name != "none" and adversary.p > 0:
        # Each process measures on its first micro-batch.
        measured = _sum_counts(mine[0].alone(sizes.forget) for mine in with_forget_rows).times(1 / GAIN_EVERY)
    if isinstance(adversary, RFAOptions) and adversary.p > 0:
        # Every process runs all prompts, so that all have the same directions without communication.
        estimates = processes * (1 - adversary.warmup) / adversary.every
        sides = [sizes.forget, sizes.retain] if adversary.direction is Direction.forget_minus_retain else [sizes.forget]
        for part in sides:
            (longest,) = part.prompts.padded(adversary.n, adversary.n)
            prompts += TokenCounts.of([longest] * adversary.n, 0.0).times(estimates)
    if isinstance(adversary, LatentPGDOptions) and adversary.p > 0:
        layer = perturbed_layer(adversary.layer, layers)
        every = (micro.alone(sizes.forget) for mine in with_forget_rows for micro in mine)
        search = Search(_sum_counts(every).times(adversary.p), adversary.steps, layer)
        measured_search = Search(measured, adversary.steps, layer)
    return Step(tuple(passes), prompts, search, measured, measured_search)


def learning_step(config: RunConfig, sizes: DataSizes, processes: int) -> Step:
    """Describes one optimizer step of learning target or oracle, over all processes; all rows count as retain rows."""
    group = RowGroup((sizes.retain,), config.target.global_batch)
    cut = expected_micro_batches([group], learning_split(config), processes)
    return Step((Pass(_sum_counts(micro.rows for mine in cut for micro in mine)),))


def reference_rows(config: RunConfig, sizes: DataSizes) -> TokenCounts:
    """Counts the tokens that the reference table runs once: forget rows and their paired answers, without padding."""
    parts = [sizes.forget] if compared_answers(config) is Pairs.none else [sizes.forget, sizes.paired]
    return _sum_counts(TokenCounts.of([part.tokens] * part.rows, part.supervised * part.rows) for part in parts)


def surprise_rows(sizes: DataSizes) -> TokenCounts:
    """Counts the tokens that the search for surprising tokens runs once: the forget rows, without padding."""
    part = sizes.forget
    return TokenCounts.of([part.tokens] * part.rows, part.supervised * part.rows)


def _sum_counts(rows: Iterable[TokenCounts]) -> TokenCounts:
    return reduce(add, rows, TokenCounts())


def forget_rows_per_forward(config: RunConfig, sizes: DataSizes, processes: int) -> int:
    """Returns the forget rows of one process's forward; of the largest one, where trainer.micro_tokens cuts."""
    if gradient_method(config.method) is None:
        groups = [RowGroup((sizes.forget,), config.trainer.global_batch)]
    else:
        # The number of layers does not matter here.
        groups = list(forward_kinds(config, sizes, 1)[0].groups)
    return rows_in_largest_micro_batch(groups, unlearning_split(config), processes)[0]


def trained_adapters(config: RunConfig) -> Adapters:
    """Returns the adapters that unlearning trains; learning target and oracle trains none."""
    trained: Adapters = config.model.lora.adapters
    return trained


def unlearning_gradients(config: RunConfig, shape: ModelShape) -> Gradients:
    """Returns the gradients that unlearning computes."""
    trained = trained_weights(shape, trained_names(config, shape))
    return Gradients(trained, trained_adapters(config), config.trainer.checkpointing)


def learning_gradients(config: RunConfig, shape: ModelShape) -> Gradients:
    """Returns the gradients that learning target and oracle computes: of all weights."""
    every = trained_weights(shape, tuple(weight_shapes(shape, NO_ADAPTERS)))
    return Gradients(every, checkpointing=config.trainer.checkpointing)


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
        kind = ForwardKind((RowGroup((both,), config.target.global_batch),), ForwardRequest((PartRequest(),)))
        micro = _largest_micro_batch(kind, learning_split(config), engine.world)
        found["learning"] = estimate_memory(shape, micro, replace(common, loads_whole=whole))
    if gradient_method(config.method) is not None and Stage.unlearn in config.stages:
        setup = replace(common, loads_whole=stage != 3, pages=pages)
        found["unlearning"] = _unlearning_memory(config, engine, shape, sizes, setup)
    return found


def _unlearning_memory(
    config: RunConfig, engine: EngineOptions, shape: ModelShape, sizes: DataSizes, common: TrainingSetup
) -> Memory:
    """Estimates the memory of unlearning: that of the kind of forward that needs most."""
    kinds = forward_kinds(config, sizes, shape.layers)
    setup = replace(
        common,
        adapters=trained_adapters(config),
        trained=trained_names(config, shape),
        quantized=config.model.lora.quantize is not Quantization.none,
        optimizer=config.trainer.optimizer,
        frozen_copy=any(kind.request.reads_reference for kind in kinds),
    )
    copies: Sequence[GradientCopies | None] = [None]
    if takes_gradients_apart(config):
        copies = gradient_copies(config)[: len(kinds)]
    micros = [_largest_micro_batch(kind, unlearning_split(config), engine.world) for kind in kinds]
    found = [
        estimate_memory(shape, micro, replace(setup, copies=held)) for micro, held in zip(micros, copies, strict=True)
    ]
    return max(found, key=lambda memory: memory.peak)


def learned_stages(config: RunConfig) -> list[Stage]:
    """Returns the stages of this run that fine-tune the base model."""
    given = {Stage.target: config.model.target, Stage.oracle: config.model.oracle}
    return [stage for stage in given if stage in config.stages and given[stage] is None]


def _largest_micro_batch(kind: ForwardKind, split: Split, processes: int) -> MicroBatch:
    """Returns the micro-batch of the longest rows: rows of similar length run together, so the longest ones meet."""
    counts = rows_in_largest_micro_batch(kind.groups, split, processes)
    parts = [(part, n) for group, n in zip(kind.groups, counts, strict=True) for part in group.kinds]
    length = max(part.lengths.longest for part, _ in parts)
    supervised = [n * part.longest_supervised for part, n in parts]
    request = kind.request
    asked = list(zip(request.parts, supervised, (n * length for _, n in parts), strict=True))
    layers = len(request.layers)
    return MicroBatch(
        sum(n for _, n in parts),
        length,
        sum(supervised),
        Reads(
            without_nll=sum(tokens for part, tokens, _ in asked if not part.nll),
            valued=sum(tokens for part, tokens, _ in asked if part.values),
            functions=max(len(part.values) for part, *_ in asked),
            compared=sum(tokens for part, tokens, _ in asked if part.reads_reference_values),
            lens=layers * sum(tokens for part, tokens, _ in asked if part.lens),
            states=layers * sum(own for part, _, own in asked if part.states),
            compared_states=layers * sum(own for part, _, own in asked if part.reference_states),
            last=request.last_layer,
        ),
        alone=counts[0] * processes >= kind.groups[0].size,
    )
