"""From a typed config to what its trainings run: passes over rows for FLOPs, the largest micro-batch for memory."""

from __future__ import annotations

from collections.abc import Sequence
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
from erulab.options import EngineName, EngineOptions, Offload, RunConfig, Stage
from erulab.planning.rows import DataSizes, Part
from erulab.planning.spread import longest_of
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
    """One optimizer step of unlearning, over all processes; padding is computed too.

    Of an adversary that is not erulab's own only the gain's measurement is known.
    """
    answers, size, micro = Answers.of(config), config.trainer.global_batch, micro_batch(config, processes)
    parts = _parts(answers, sizes)
    together = longest_of([part.lengths.padded(size, micro) for part in parts])
    trained = _rows(together, micro, sum(part.supervised for part in parts), len(parts))
    kl = _rows(together, micro, sizes.retain.supervised) if answers.retain is Retain.kl else Rows()
    prompts, search, measured, measured_search = Rows(), None, Rows(), None
    adversary = config.adversary
    forget = sizes.forget.lengths.padded(size, micro)
    if adversary.name != "none" and adversary.p > 0:
        # Each process measures on its first micro-batch.
        measured = _rows(forget[:processes], micro, sizes.forget.supervised).times(1 / GAIN_EVERY)
    if isinstance(adversary, RFAOptions) and adversary.p > 0:
        # Every process runs all prompts, and so has the same directions without asking the others.
        often = processes * (1 - adversary.warmup) / adversary.every
        sides = [sizes.forget, sizes.retain] if adversary.direction is Direction.forget_minus_retain else [sizes.forget]
        for part in sides:
            prompts += _rows(part.prompts.padded(adversary.n, adversary.n), adversary.n, 0.0).times(often)
    if isinstance(adversary, LatentPGDOptions) and adversary.p > 0:
        layer = perturbed_layer(adversary.layer, layers)
        searched = _rows(forget, micro, sizes.forget.supervised).times(adversary.p)
        search = Search(searched, adversary.steps, layer)
        measured_search = Search(measured, adversary.steps, layer)
    return Step(trained, kl, prompts, search, measured, measured_search)


def learning_step(config: RunConfig, sizes: DataSizes, processes: int) -> Step:
    """One optimizer step of learning the target or the oracle, over all processes; retain rows stand for all."""
    size = config.target.global_batch
    micro = config.target.micro_batch or size // processes
    return Step(_rows(sizes.retain.lengths.padded(size, micro), micro, sizes.retain.supervised))


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


def _parts(answers: Answers, sizes: DataSizes) -> list[Part]:
    """The kinds of rows that run in one forward, as many of each."""
    parts = [sizes.other if answers.trains is Trains.refusal else sizes.forget]
    if answers.trains is Trains.forget and answers.pairs is not Pairs.none:
        parts.append(sizes.other)
    if answers.retain is not Retain.none:
        parts.append(sizes.retain)
    return parts


def _rows(lengths: Sequence[float], micro: int, supervised: float, kinds: int = 1) -> Rows:
    """Chunks of `kinds * micro` rows, each padded to its length; `supervised`: a row's, of all kinds together."""
    count = kinds * micro
    return Rows.of([length for length in lengths for _ in range(count)], supervised * micro * len(lengths))


def micro_batch(config: RunConfig, processes: int) -> int:
    """Forget rows of one process's forward."""
    return config.trainer.micro_batch or config.trainer.global_batch // processes


def numbers(engine: EngineOptions, bf16: bool) -> Numbers:
    """What an engine computes in: plain PyTorch keeps float32 weights, DeepSpeed does not."""
    if not bf16:
        return Numbers.fp32
    return Numbers.autocast if engine.name is EngineName.local else Numbers.bf16


def memories(
    config: RunConfig, engine: EngineOptions, shape: ModelShape, sizes: DataSizes, bf16: bool
) -> dict[str, Memory]:
    """Memory of each training that the run holds, "learning" and "unlearning"; `engine` is definite."""
    processes = engine.processes or 1
    stage = None if engine.name is EngineName.local else int(engine.name.value.removeprefix("zero"))
    answers = Answers.of(config)

    def training(frozen_copy: bool) -> Training:
        return Training(
            numbers(engine, bf16), Sharding(stage, processes, engine.offload is not Offload.none),
            config.trainer.checkpointing, eager_attention=config.model.attention is Attention.eager,
            frozen_copy=frozen_copy,
        )  # fmt: skip

    found = {}
    if learns(config):
        size = config.target.micro_batch or config.target.global_batch // processes
        micro = MicroBatch(
            size, max(sizes.forget.lengths.longest, sizes.retain.lengths.longest),
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
    size, parts = micro_batch(config, processes), _parts(answers, sizes)
    return MicroBatch(
        size * len(parts),
        max(part.lengths.longest for part in parts),
        size * sum(part.longest_supervised for part in parts),
        kl_supervised=size * sizes.retain.longest_supervised if answers.retain is Retain.kl else 0.0,
        alone=size * processes == config.trainer.global_batch,
    )
