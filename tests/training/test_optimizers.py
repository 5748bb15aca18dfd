"""The optimizers of `trainer.optimizer`: their steps, the state that checkpoints hold, and what keys depend on."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch

from erulab.config.compose import compose_config
from erulab.data.rows import Benchmark
from erulab.errors import Interrupted
from erulab.launching.folder_key import folder_key
from erulab.models.loaded import LoadedModel
from erulab.options import (
    EngineName,
    EngineOptions,
    OptimizerName,
    Precision,
    Schedule,
    TrainerOptions,
    product_options,
)
from erulab.ranks import Ranks
from erulab.tokens.batch import collate
from erulab.tokens.encoder import Encoder
from erulab.training.batches import Split
from erulab.training.checkpoints import Checkpoints
from erulab.training.finetune import FinetuneOptions, assemble_finetuning
from erulab.training.local import LocalEngine
from erulab.training.loop import train
from erulab.training.optimizers import MOMENTS, STEP, build_optimizer
from erulab.training.stopping import StopRequest
from tests.cases import Case
from tests.training.conftest import Unlearning

NEEDS_BITSANDBYTES = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
every_optimizer = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=NEEDS_BITSANDBYTES if name.in_8_bits else ()) for name in OptimizerName],
    ids=lambda name: name.value,
)
LR, DECAY = 0.02, 0.1
# Kinds that an optimizer computes anew in each step, or that are the same for every parameter.
DERIVED = {"RMS", "qmap1", "qmap2"}


def engine_of(loaded: LoadedModel, name: OptimizerName, *, decay: float = DECAY) -> LocalEngine:
    policy = loaded.copy().policy
    return LocalEngine(policy, weight_decay=decay, clip=0.0, precision=Precision.fp32, optimizer=name)


def gradients(engine: LocalEngine, world: Benchmark, loaded: LoadedModel) -> dict[str, torch.Tensor]:
    """Runs a forward and backward over eight rows."""
    batch = collate(Encoder(loaded.chat, None, Path()).encode(world.forget[:8]), loaded.pad_id)
    engine.backward(engine.policy.row_nll(batch).mean(), last=True)
    return {name: p.grad.clone() for name, p in engine.policy.named_parameters() if p.grad is not None}


def weights(engine: LocalEngine) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in engine.policy.named_parameters()}


def test_sgd_takes_the_step_of_its_formula(world: Benchmark, loaded: LoadedModel) -> None:
    """p - lr (g + decay p) for matrices, p - lr g for norms; two steps, so that momentum would show."""
    engine = engine_of(loaded, OptimizerName.sgd)
    for _ in range(2):
        before, grads = weights(engine), gradients(engine, world, loaded)
        engine.step(LR)
        for name, after in weights(engine).items():
            decay = DECAY if after.dim() > 1 else 0.0
            expected = before[name].double() - LR * (grads[name].double() + decay * before[name].double())
            torch.testing.assert_close(after.double(), expected, rtol=1e-6, atol=1e-7)


def test_fine_tuning_takes_the_optimizer_that_it_is_given(world: Benchmark, loaded: LoadedModel) -> None:
    """One step of sgd: p - lr g. That of adamw would be about lr long for every weight."""
    options = FinetuneOptions(
        lr=LR,
        epochs=1,
        steps=1,
        global_batch=8,
        split=Split(),
        weight_decay=0.0,
        warmup=0.0,
        schedule=Schedule.constant,
        clip=0.0,
        seed=0,
        optimizer=OptimizerName.sgd,
    )
    rows = Encoder(loaded.chat, None, Path()).encode(world.forget)
    engine, *_ = assemble_finetuning(loaded.copy(), rows, options, EngineOptions(EngineName.local), Ranks())
    assert isinstance(engine, LocalEngine)
    before, grads = weights(engine), gradients(engine, world, loaded)
    engine.step(LR)
    for name, after in weights(engine).items():
        torch.testing.assert_close(after, before[name] - LR * grads[name], rtol=1e-6, atol=1e-7)


def test_adafactor_takes_the_step_of_the_paper(world: Benchmark, loaded: LoadedModel) -> None:
    """Algorithms 4 and 5 of Shazeer and Stern (2018) in float64, with our rate and decoupled weight decay."""
    engine = engine_of(loaded, OptimizerName.adafactor)
    rows: dict[str, torch.Tensor] = {}
    columns: dict[str, torch.Tensor] = {}
    for t in (1, 2, 3):
        before, grads = weights(engine), gradients(engine, world, loaded)
        engine.step(LR)
        beta = 1 - t**-0.8
        for name, after in weights(engine).items():
            weight, g = before[name].double(), grads[name].double()
            squares = g**2 + 1e-30
            if g.dim() == 1:
                rows[name] = beta * rows.get(name, torch.zeros_like(g)) + (1 - beta) * squares
                second = rows[name]
            else:
                rows[name] = beta * rows.get(name, torch.zeros(g.shape[0])) + (1 - beta) * squares.sum(1)
                columns[name] = beta * columns.get(name, torch.zeros(g.shape[1])) + (1 - beta) * squares.sum(0)
                second = rows[name][:, None] * columns[name] / rows[name].sum()
                weight = weight * (1 - LR * DECAY)
            update = g / second.sqrt()
            update = update / max(1.0, float(update.square().mean().sqrt()))
            torch.testing.assert_close(after.double(), weight - LR * update, rtol=1e-4, atol=1e-6)


@NEEDS_BITSANDBYTES
@pytest.mark.parametrize("name", [OptimizerName.adamw_8bit, OptimizerName.paged_adamw_8bit], ids=lambda n: n.value)
def test_the_first_step_in_8_bits_is_that_of_adamw(world: Benchmark, loaded: LoadedModel, name: OptimizerName) -> None:
    """Moments are rounded behind the update, so the first one is exact: p (1 - lr decay) - lr g / (|g| + eps)."""
    engine = engine_of(loaded, name)
    before, grads = weights(engine), gradients(engine, world, loaded)
    engine.step(LR)
    for key, after in weights(engine).items():
        kept = before[key] * (1 - LR * DECAY) if after.dim() > 1 else before[key]
        torch.testing.assert_close(after, kept - LR * grads[key] / (grads[key].abs() + 1e-8), rtol=1e-4, atol=1e-5)


@every_optimizer
def test_checkpoints_hold_all_of_the_state(world: Benchmark, loaded: LoadedModel, name: OptimizerName) -> None:
    policy = loaded.copy().policy
    optimizer = build_optimizer(name, policy, DECAY)
    batch = collate(Encoder(loaded.chat, None, Path()).encode(world.forget[:8]), loaded.pad_id)
    policy.row_nll(batch).mean().backward()
    optimizer.step()
    kinds = {kind for state in optimizer.state.values() for kind in state} - DERIVED
    assert kinds == ({*MOMENTS[name], STEP} if MOMENTS[name] else set())


@every_optimizer
def test_a_stopped_run_continues_to_the_same_bits(
    world: Benchmark, loaded: LoadedModel, tmp_path: Path, name: OptimizerName
) -> None:
    unlearning = Unlearning(Case("npo", "reference"), world, loaded)
    checkpoints = Checkpoints(tmp_path / "checkpoints", {"key": 1}, Ranks())

    def attempt(kept: Checkpoints | None, stop_after: int | None) -> tuple[list[float], dict[str, torch.Tensor]]:
        policy, objective, loop, subject = unlearning.build(tmp_path)
        loop = dataclasses.replace(loop, lr=1.0 if name is OptimizerName.sgd else loop.lr)
        engine = LocalEngine(policy, weight_decay=0.01, clip=1.0, precision=Precision.fp32, optimizer=name)
        stop, losses = StopRequest(), []
        for step, values in train(engine, objective, loop, Ranks(), kept, stop):
            losses.append(values["loss"])
            stop.requested = step + 1 == stop_after
        return losses, subject.model.state_dict()

    straight, trained = attempt(None, None)
    assert straight[-1] < straight[0]
    with pytest.raises(Interrupted):
        attempt(checkpoints, 3)
    resumed, same = attempt(checkpoints, None)
    assert resumed == straight[3:]
    assert all(torch.equal(trained[key], same[key]) for key in trained)


def test_another_optimizer_or_format_is_another_product() -> None:
    changed = product_options(dataclasses.asdict(TrainerOptions(optimizer=OptimizerName.sgd)))
    assert changed["optimizer"] is OptimizerName.sgd and "micro_batch" not in changed
    lora = ["model.lora.rank=4"]
    keys = {
        folder_key(compose_config([*lora, *words]))
        for words in ([], ["trainer.optimizer=adamw"], ["model.lora.quantize=none"])
    }
    assert len(keys) == 1
    keys |= {folder_key(compose_config([*lora, word])) for word in ("trainer.optimizer=sgd", "model.lora.quantize=nf4")}
    assert len(keys) == 3
