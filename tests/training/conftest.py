"""A small world, a small model, and unlearnings on them that are built from the table of cases."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch

from erulab.costs.ledger import Ledger
from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.rows import Benchmark, Row
from erulab.methods.base import forget_tokens_of
from erulab.models.loaded import LoadedModel
from erulab.models.tiny import TinyModel, TinyOptions
from erulab.options import EngineName, EngineOptions, Precision, RunConfig, Schedule, TrainerOptions
from erulab.ranks import Ranks
from erulab.registry import adversaries, load_plugins, methods, rewards
from erulab.tokens.encoder import Encoder
from erulab.training.assembly import build_objective, encode_unlearning_rows, freeze_untrained, needs_reference_table
from erulab.training.batches import Split
from erulab.training.finetune import FinetuneOptions, assemble_finetuning
from erulab.training.local import LocalEngine
from erulab.training.loop import LoopOptions, train
from erulab.training.reference import ReferenceTable, reference_table
from erulab.training.unlearning import References, UnlearningObjective, compares_with_frozen_model
from tests.cases import Case
from tests.conftest import MadeOnce

load_plugins()


def small_world() -> Benchmark:
    options = FictitiousOptions(
        world=7, forget_authors=3, retain_authors=3, unrehearsed_authors=1, unseen_authors=1, general_facts=2
    )
    return FictitiousWorld(options).load(0)


def untrained_model(world: Benchmark) -> LoadedModel:
    return TinyModel(TinyOptions(layers=3, width=32, heads=2)).load(world, seed=3)


def small_model(world: Benchmark) -> LoadedModel:
    """A model that has learned a part of the world: it can forget, and its gradients are not saturated."""
    loaded = untrained_model(world)
    learn(loaded, world.target_rows, steps=60)
    return loaded


def learn(loaded: LoadedModel, rows: Sequence[Row], *, steps: int, lr: float = 1e-2) -> None:
    """Trains a model on rows, in place."""
    options = FinetuneOptions(
        lr=lr,
        epochs=1,
        steps=steps,
        global_batch=32,
        split=Split(),
        weight_decay=0.0,
        warmup=0.1,
        schedule=Schedule.linear,
        clip=1.0,
        seed=5,
    )
    encoded = Encoder(loaded.chat, None, Path()).encode(rows)
    for _ in train(*assemble_finetuning(loaded, encoded, options, EngineOptions(EngineName.local), Ranks()), Ranks()):
        pass


def options_of(registry: Any, name: str, changes: dict[str, Any]) -> Any:
    """Returns a plugin's options with changes as plain values."""
    return changed(registry[name].options(), changes)


def changed(default: Any, changes: dict[str, Any]) -> Any:
    """Returns options with changes as plain values; enums are given by name."""
    plain = {
        key: type(getattr(default, key))(value) if isinstance(getattr(default, key), Enum) else value
        for key, value in changes.items()
    }
    return dataclasses.replace(default, **plain)


@dataclasses.dataclass
class Unlearning:
    """The settings of one unlearning; every `build` starts from a new copy of the model."""

    case: Case
    world: Benchmark
    loaded: LoadedModel
    global_batch: int = 8
    micro_batch: int | None = 8
    micro_tokens: int | None = None
    steps: int = 6
    seed: int = 11
    pad_id: int | None = None
    ranks: Ranks = dataclasses.field(default_factory=Ranks)

    def build(self, folder: Path) -> tuple[Any, UnlearningObjective, LoopOptions, LoadedModel]:
        case, ranks = self.case, self.ranks
        subject = dataclasses.replace(self.loaded.copy(), ledger=Ledger())
        config = RunConfig(
            method=options_of(methods, case.method, case.method_options),
            reward=options_of(rewards, case.reward, case.reward_options),
            adversary=options_of(adversaries, case.adversary, case.adversary_options),
            trainer=dataclasses.replace(
                changed(TrainerOptions(), case.trainer_options),
                global_batch=self.global_batch,
                micro_batch=self.micro_batch,
                micro_tokens=self.micro_tokens,
            ),
            seed=self.seed,
        )
        encoder = Encoder(self.loaded.chat, None, Path())
        method = methods.build(config.method)
        # In place of answers that a model generates, the first wrong ones that the world has.
        count = 0 if method.needs.generated is None else method.needs.generated.count
        given = {row.id: row.perturbed[:count] for row in self.world.forget} if count else None
        tokens = forget_tokens_of(config.method)
        rows = encode_unlearning_rows(encoder, self.world, method, self.seed, tokens, alternatives=given)
        table: ReferenceTable | None = None
        if needs_reference_table(config):
            table = reference_table(
                subject.policy,
                "key",
                rows.forget,
                rows.paired,
                folder=folder,
                pad_id=subject.pad_id,
                batch_tokens=2048,
                ranks=ranks,
            )
        method = methods.build(config.method)
        compares_live = compares_with_frozen_model(method)
        frozen = subject.copy().policy.requires_grad_(False) if compares_live else None
        policy = subject.policy
        freeze_untrained(policy, method)
        pad_id = subject.pad_id if self.pad_id is None else self.pad_id
        objective = build_objective(config, rows, policy, References(table, frozen), pad_id=pad_id, ranks=ranks)
        loop = LoopOptions(1e-3, self.steps, 0.1, Schedule.linear, self.global_batch)
        return policy, objective, loop, subject

    def run(self, folder: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
        """Trains all steps on the local engine; returns the metrics of each step and the final weights."""
        policy, objective, loop, subject = self.build(folder)
        engine = LocalEngine(policy, weight_decay=0.01, clip=1.0, precision=Precision.fp32)
        metrics = [values for _, values in train(engine, objective, loop, self.ranks)]
        return metrics, subject.model.state_dict()


@pytest.fixture(scope="session")
def world() -> Benchmark:
    return small_world()


@pytest.fixture(scope="session")
def loaded(world: Benchmark) -> LoadedModel:
    return small_model(world)


@pytest.fixture(scope="session")
def ranks_folder(made_once: MadeOnce, world: Benchmark, loaded: LoadedModel) -> Path:
    """The folder that processes under DeepSpeed wrote, for test_zero.py and test_sharded.py."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed (it is for Linux only)")
    from tests.training.zero_launch import run_all  # needs this file's classes

    return made_once("zero", lambda folder: run_all(folder, world, loaded))
