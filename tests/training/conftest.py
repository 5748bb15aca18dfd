"""A small world, a small random model, and unlearnings on them built from the table of cases."""

from __future__ import annotations

import dataclasses
import importlib.util
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch

from erulab.costs.ledger import Ledger
from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.rows import Benchmark
from erulab.methods.base import Retain
from erulab.models.loaded import LoadedModel
from erulab.models.tiny import TinyModel, TinyOptions
from erulab.options import EngineName, EngineOptions, Precision, Schedule
from erulab.ranks import Ranks
from erulab.registry import adversaries, load_plugins, methods, rewards
from erulab.tokens.encoder import Encoder
from erulab.training.assembly import encode
from erulab.training.batches import Split
from erulab.training.finetune import FinetuneOptions, finetuning
from erulab.training.local import LocalEngine
from erulab.training.loop import LoopOptions, train
from erulab.training.reference import ReferenceTable, reference_table
from erulab.training.unlearning import UnlearningObjective, UnlearningRows
from tests.cases import Case

load_plugins()


def small_world() -> Benchmark:
    options = FictitiousOptions(
        world=7, forget_authors=3, retain_authors=3, unrehearsed_authors=1, unseen_authors=1, general_facts=2
    )
    return FictitiousWorld(options).load(0)


def untrained_model(world: Benchmark) -> LoadedModel:
    return TinyModel(TinyOptions(layers=3, width=32, heads=2)).load(world, seed=3)


def small_model(world: Benchmark) -> LoadedModel:
    """A model that has begun to know the world: there is something to forget, and gradients are not saturated."""
    loaded = untrained_model(world)
    options = FinetuneOptions(
        lr=1e-2,
        epochs=1,
        steps=60,
        global_batch=32,
        split=Split(),
        weight_decay=0.0,
        warmup=0.1,
        schedule=Schedule.linear,
        clip=1.0,
        seed=5,
    )
    rows = Encoder(loaded.chat, None, Path()).encode(world.target_rows)
    for _ in train(*finetuning(loaded, rows, options, EngineOptions(EngineName.local), Ranks()), Ranks()):
        pass
    return loaded


def options_of(registry: Any, name: str, changes: dict[str, Any]) -> Any:
    """A plugin's options with changes given as plain values, enums by their name."""
    default = registry[name].options()
    plain = {
        key: type(getattr(default, key))(value) if isinstance(getattr(default, key), Enum) else value
        for key, value in changes.items()
    }
    return dataclasses.replace(default, **plain)


@dataclasses.dataclass
class Unlearning:
    """One unlearning, ready to train: a fresh copy of the model every time."""

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

    def rows(self, method: Any) -> UnlearningRows:
        return encode(Encoder(self.loaded.chat, None, Path()), self.world, method, self.seed)

    def build(self, folder: Path) -> tuple[Any, UnlearningObjective, LoopOptions, LoadedModel]:
        case, ranks = self.case, self.ranks
        subject = dataclasses.replace(self.loaded.copy(), ledger=Ledger())
        method_options = options_of(methods, case.method, case.method_options)
        method = methods.build(method_options)
        reward = None
        if method.takes_reward:
            reward = rewards.build(options_of(rewards, case.reward, case.reward_options))
        adversary = adversaries.build(options_of(adversaries, case.adversary, case.adversary_options))
        adversary.seed = self.seed
        rows = self.rows(method)
        references: ReferenceTable | None = None
        if reward is not None and reward.needs_reference:
            references = reference_table(
                subject.policy,
                "key",
                rows.forget,
                rows.others,
                folder=folder,
                pad_id=subject.pad_id,
                batch_tokens=2048,
                ranks=ranks,
            )
        retain = method_options.retain
        frozen = subject.copy().policy.requires_grad_(False) if retain is Retain.kl else None
        policy = subject.policy
        objective = UnlearningObjective(
            rows,
            method,
            reward,
            adversary,
            forget_weight=1.0,
            retain=retain,
            retain_weight=1.0,
            references=references,
            frozen=frozen,
            policy=policy,
            global_batch=self.global_batch,
            split=Split(self.micro_batch, self.micro_tokens),
            seed=self.seed,
            pad_id=subject.pad_id if self.pad_id is None else self.pad_id,
            ranks=ranks,
        )
        loop = LoopOptions(1e-3, self.steps, 0.1, Schedule.linear, self.global_batch)
        return policy, objective, loop, subject

    def run(self, folder: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
        """Trains all steps on the local engine; metrics of each, and the final weights."""
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
def ranks_folder(tmp_path_factory: pytest.TempPathFactory, world: Benchmark, loaded: LoadedModel) -> Path:
    """What processes under DeepSpeed wrote, for test_zero.py and test_sharded.py."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed (it is for Linux only)")
    from tests.training.zero_launch import run_all  # needs this file's classes

    folder = tmp_path_factory.mktemp("zero")
    run_all(folder, world, loaded)
    return folder
