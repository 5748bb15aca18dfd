"""From a typed config to what its trainings run: passes over rows for FLOPs, the largest micro-batch for memory."""

from __future__ import annotations

from dataclasses import dataclass

from erulab.adversaries.balls import perturbed_layer
from erulab.adversaries.latent_pgd import LatentPGDOptions
from erulab.adversaries.rfa import Direction, RFAOptions
from erulab.costs.flops import Rows
from erulab.costs.memory import Memory, MicroBatch, Numbers, Sharding, Training, memory
from erulab.costs.shapes import ModelShape
from erulab.costs.steps import Search, Step
from erulab.methods.base import Method, Pairs, Retain, Trains
from erulab.models.base import Attention
from erulab.options import EngineName, EngineOptions, RunConfig, Stage
from erulab.planning.rows import DataSizes
from erulab.registry import methods

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
    """One optimizer step of unlearning, over all processes."""
    answers, size = Answers.of(config), config.trainer.global_batch
    trained = sizes.other.mean_rows(size) if answers.trains is Trains.refusal else sizes.forget.mean_rows(size)
    if answers.trains is Trains.forget and answers.pairs is not Pairs.none:
        trained += sizes.other.mean_rows(size)
    retain = sizes.retain.mean_rows(0 if answers.retain is Retain.none else size)
    kl = retain if answers.retain is Retain.kl else Rows()
    prompts, search, measured, measured_search = Rows(), None, Rows(), None
    adversary = config.adversary
    if adversary.name != "none" and adversary.p > 0:
        # Each process measures on its first micro-batch.
        measured = sizes.forget.mean_rows(micro_batch(config, processes) * processes / GAIN_EVERY)
    if isinstance(adversary, RFAOptions) and adversary.p > 0:
        # Every process runs all prompts, and so has the same directions without asking the others.
        often = adversary.n * processes * (1 - adversary.warmup) / adversary.every
        prompts = sizes.forget.prompts(often)
        if adversary.direction is Direction.forget_minus_retain:
            prompts += sizes.retain.prompts(often)
    if isinstance(adversary, LatentPGDOptions) and adversary.p > 0:
        layer = perturbed_layer(adversary.layer, layers)
        search = Search(sizes.forget.mean_rows(adversary.p * size), adversary.steps, layer)
        measured_search = Search(measured, adversary.steps, layer)
    return Step(trained + retain, kl, prompts, search, measured, measured_search)


def learning_step(config: RunConfig, sizes: DataSizes) -> Step:
    """One optimizer step of learning the target or the oracle, over all processes."""
    return Step(sizes.retain.mean_rows(config.target.global_batch))


def micro_batch(config: RunConfig, processes: int) -> int:
    """Forget rows of one process's forward."""
    return config.trainer.micro_batch or config.trainer.global_batch // processes


def numbers(engine: EngineOptions, bf16: bool) -> Numbers:
    """What an engine computes in: plain PyTorch keeps float32 weights, DeepSpeed does not."""
    if not bf16:
        return Numbers.fp32
    return Numbers.autocast if engine.name is EngineName.local else Numbers.bf16


def memories(config: RunConfig, engine: EngineOptions, shape: ModelShape, sizes: DataSizes, bf16: bool) -> dict[str, Memory]:
    """Memory of each training that the run holds, "learning" and "unlearning"; `engine` is definite."""
    processes = engine.processes or 1
    stage = None if engine.name is EngineName.local else int(engine.name.value.removeprefix("zero"))
    answers = Answers.of(config)

    def training(frozen_copy: bool) -> Training:
        return Training(
            numbers(engine, bf16), Sharding(stage, processes, engine.offload), config.trainer.checkpointing,
            eager_attention=config.model.attention is Attention.eager, frozen_copy=frozen_copy,
        )  # fmt: skip

    found = {}
    if learns(config):
        size = config.target.micro_batch or config.target.global_batch // processes
        micro = MicroBatch(
            size, max(sizes.forget.longest, sizes.retain.longest),
            size * max(sizes.forget.longest_supervised, sizes.retain.longest_supervised),
            alone=size * processes == config.target.global_batch,
        )  # fmt: skip
        found["learning"] = memory(shape, micro, training(False))
    if unlearns(answers.trains) and Stage.unlearn in config.stages:
        found["unlearning"] = memory(
            shape, _largest(config, answers, sizes, processes), training(answers.retain is Retain.kl)
        )
    return found


def learns(config: RunConfig) -> list[Stage]:
    """The stages that fine-tune the base model in this run."""
    given = {Stage.target: config.model.target, Stage.oracle: config.model.oracle}
    return [stage for stage in given if stage in config.stages and given[stage] is None]


def _largest(config: RunConfig, answers: Answers, sizes: DataSizes, processes: int) -> MicroBatch:
    """The micro-batch of the longest rows: rows of like length run together, so they meet."""
    size = micro_batch(config, processes)
    parts = [sizes.other if answers.trains is Trains.refusal else sizes.forget]
    if answers.trains is Trains.forget and answers.pairs is not Pairs.none:
        parts.append(sizes.other)
    kl = 0.0
    if answers.retain is not Retain.none:
        parts.append(sizes.retain)
        kl = size * sizes.retain.longest_supervised if answers.retain is Retain.kl else 0.0
    return MicroBatch(
        size * len(parts), max(part.longest for part in parts),
        size * sum(part.longest_supervised for part in parts), kl_supervised=kl,
        alone=size * processes == config.trainer.global_batch,
    )  # fmt: skip
