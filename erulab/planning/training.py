"""From a typed config to what its trainings run: passes over rows for FLOPs, the largest micro-batch for memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from erulab.adversaries.balls import perturbed_layer
from erulab.adversaries.latent_pgd import LatentPGDOptions
from erulab.adversaries.rfa import Direction, RFAOptions
from erulab.costs.flops import Rows
from erulab.costs.memory import Memory, MicroBatch, Numbers, Sharding, Training, memory
from erulab.costs.shapes import Adapters, ModelShape
from erulab.costs.steps import Search, Step
from erulab.methods.base import Method, Pairs, Retain, Trains
from erulab.models.options import Attention
from erulab.options import EngineName, EngineOptions, Offload, RunConfig, Stage
from erulab.planning.micro import Group, expected, largest, learning_split, unlearning_split
from erulab.planning.rows import DataSizes
from erulab.planning.spread import Spread
from erulab.registry import methods, models
from erulab.training.batches import Split

# As erulab/training/unlearning.py has it (a test compares): that file loads torch, this one must not.
GAIN_EVERY = 10


@dataclass(frozen=True)
class Answers:
    """Which rows an unlearning method runs on; None of them where it does not train."""

    trains: Trains
    pairs: Pairs
    retain: Retain

    @classmethod
    def of(cls, config: RunConfig) -> Answers:
        method: Method = methods.build(config.method)
        if not unlearns(method.trains):
            return cls(method.trains, Pairs.none, Retain.none)
        pairs = Pairs.refusal if method.trains is Trains.refusal else method.pairs
        return cls(method.trains, pairs, config.method.retain)


def unlearns(trains: Trains) -> bool:
    """Whether the method has a training of its own (retrain is the oracle, none the target)."""
    return trains in (Trains.forget, Trains.refusal)


def unlearning_step(config: RunConfig, sizes: DataSizes, layers: int, processes: int) -> Step:
    """One optimizer step of unlearning, over all `processes`; padding is computed too.

    Of an adversary that is not erulab's own only the gain's measurement is known.
    """
    answers = Answers.of(config)
    cut = expected(_groups(answers, sizes), config.trainer.global_batch, unlearning_split(config), processes)
    micros = [micro for mine in cut for micro in mine]
    trained = _sum(micro.rows for micro in micros)
    kl = _sum(micro.of(1) for micro in micros) if answers.retain is Retain.kl else Rows()
    prompts, search, measured, measured_search = Rows(), None, Rows(), None
    adversary = config.adversary
    if adversary.name != "none" and adversary.p > 0:
        # Each process measures on its first micro-batch.
        measured = _sum(mine[0].alone(sizes.forget) for mine in cut).times(1 / GAIN_EVERY)
    if isinstance(adversary, RFAOptions) and adversary.p > 0:
        # Every process runs all prompts, and so has the same directions without asking the others.
        often = processes * (1 - adversary.warmup) / adversary.every
        sides = [sizes.forget, sizes.retain] if adversary.direction is Direction.forget_minus_retain else [sizes.forget]
        for part in sides:
            (longest,) = part.prompts.padded(adversary.n, adversary.n)
            prompts += Rows.of([longest] * adversary.n, 0.0).times(often)
    if isinstance(adversary, LatentPGDOptions) and adversary.p > 0:
        layer = perturbed_layer(adversary.layer, layers)
        searched = _sum(micro.alone(sizes.forget) for micro in micros).times(adversary.p)
        search = Search(searched, adversary.steps, layer)
        measured_search = Search(measured, adversary.steps, layer)
    return Step(trained, kl, prompts, search, measured, measured_search)


def learning_step(config: RunConfig, sizes: DataSizes, processes: int) -> Step:
    """One optimizer step of learning the target or the oracle, over all processes; retain rows stand for all."""
    cut = expected([[sizes.retain]], config.target.global_batch, learning_split(config), processes)
    return Step(_sum(micro.rows for mine in cut for micro in mine))


def reference_rows(config: RunConfig, sizes: DataSizes) -> Rows:
    """What the reference table is made from, once: forget rows and their paired answers, hardly padded."""
    answers = Answers.of(config)
    parts = [sizes.forget]
    if answers.trains is Trains.forget and answers.pairs is not Pairs.none:
        parts.append(sizes.other)
    total = Rows()
    for part in parts:
        total += Rows.of([part.tokens] * part.rows, part.supervised * part.rows)
    return total


def _groups(answers: Answers, sizes: DataSizes) -> list[Group]:
    """The rows that run in one forward: answers with their paired answers, then retain rows, as many of each."""
    group = [sizes.other if answers.trains is Trains.refusal else sizes.forget]
    if answers.trains is Trains.forget and answers.pairs is not Pairs.none:
        group.append(sizes.other)
    return [group] if answers.retain is Retain.none else [group, [sizes.retain]]


def _sum(rows: Iterable[Rows]) -> Rows:
    return reduce(add, rows, Rows())


def micro_batch(config: RunConfig, sizes: DataSizes, processes: int) -> int:
    """Forget rows of one process's forward: of the largest one, where a budget of tokens cuts."""
    split = unlearning_split(config)
    return largest(_groups(Answers.of(config), sizes), config.trainer.global_batch, split, processes)


def adapters(config: RunConfig) -> Adapters:
    """That unlearning trains; learning never trains any."""
    trained: Adapters = config.model.lora.adapters
    return trained


def numbers(engine: EngineOptions, bf16: bool) -> Numbers:
    """What an engine computes in: plain PyTorch keeps float32 weights, DeepSpeed does not."""
    if not bf16:
        return Numbers.fp32
    return Numbers.autocast if engine.name is EngineName.local else Numbers.bf16


def memories(
    config: RunConfig, engine: EngineOptions, shape: ModelShape, sizes: DataSizes, bf16: bool
) -> dict[str, Memory]:
    """Memory of each training that the run holds, "learning" and "unlearning"; `engine` is definite."""
    stage = None if engine.name is EngineName.local else int(engine.name.value.removeprefix("zero"))
    answers = Answers.of(config)
    sharding = Sharding(stage, engine.world, engine.offload is not Offload.none, engine.offload is Offload.nvme)
    common = Training(
        numbers(engine, bf16),
        sharding,
        config.trainer.checkpointing,
        eager_attention=config.model.attention is Attention.eager,
    )
    found = {}
    if learns(config):
        # Only weights of a folder are read sharded; what is made, or unpacked from a package, begins whole.
        whole = stage != 3 or models.build(config.model).folder is None
        both = replace(
            sizes.retain,
            lengths=Spread.constant(max(sizes.forget.lengths.longest, sizes.retain.lengths.longest)),
            longest_supervised=max(sizes.forget.longest_supervised, sizes.retain.longest_supervised),
        )
        micro = _largest([[both]], config.target.global_batch, learning_split(config), engine.world)
        found["learning"] = memory(shape, micro, replace(common, loads_whole=whole))
    if unlearns(answers.trains) and Stage.unlearn in config.stages:
        kl = answers.retain is Retain.kl
        groups = _groups(answers, sizes)
        micro = _largest(groups, config.trainer.global_batch, unlearning_split(config), engine.world, kl=kl)
        found["unlearning"] = memory(
            shape, micro, replace(common, adapters=adapters(config), frozen_copy=kl, loads_whole=stage != 3)
        )
    return found


def learns(config: RunConfig) -> list[Stage]:
    """The stages that fine-tune the base model in this run."""
    given = {Stage.target: config.model.target, Stage.oracle: config.model.oracle}
    return [stage for stage in given if stage in config.stages and given[stage] is None]


def _largest(groups: list[Group], size: int, split: Split, processes: int, *, kl: bool = False) -> MicroBatch:
    """The micro-batch of the longest rows: rows of like length run together, so they meet."""
    rows = largest(groups, size, split, processes)
    parts = [part for group in groups for part in group]
    return MicroBatch(
        rows * len(parts),
        max(part.lengths.longest for part in parts),
        rows * sum(part.longest_supervised for part in parts),
        kl_supervised=rows * parts[-1].longest_supervised if kl else 0.0,
        alone=rows * processes >= size,
    )
