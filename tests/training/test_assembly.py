"""Unlearnings assembled from a config, with adapters, gradient checkpointing and compiled blocks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from erulab.config.compose import compose_config
from erulab.data.rows import Benchmark
from erulab.models.loaded import LoadedModel
from erulab.models.lora import WithoutAdapters, merged, save_adapter, with_lora
from erulab.ranks import Ranks
from erulab.registry import models
from erulab.tokens.batch import collate
from erulab.tokens.encoder import Encoder
from erulab.training.assembly import assemble_unlearning
from erulab.training.loader import ModelLoader, ModelRef
from erulab.training.loop import train
from erulab.training.unlearning_batches import UnlearningRows
from tests.training.test_contract import assert_close

STEPS = 4


def run(
    world: Benchmark, loaded: LoadedModel, folder: Path, *overrides: str
) -> tuple[list[dict[str, float]], LoadedModel]:
    """Trains STEPS steps; returns the metrics of every step, and the trained model."""
    common = [f"trainer.steps={STEPS}", "trainer.global_batch=8", "trainer.lr=1e-3", "tracker=none"]
    config = compose_config([*common, *overrides])
    rows = [Encoder(loaded.chat, None, Path()).encode(part) for part in (world.forget, world.retain)]
    loader = ModelLoader(config, models.build(config.model), loaded.ledger, loaded.policy.device)
    unlearning = assemble_unlearning(
        config, loader, ModelRef("key", ""), loaded.copy(), UnlearningRows(rows[0], [], rows[1]), Ranks(), folder
    )
    steps = train(unlearning.engine, unlearning.objective, unlearning.loop, Ranks())
    return [metrics for _, metrics in steps], unlearning.model


def test_only_adapters_are_trained(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    curve, subject = run(world, loaded, tmp_path, "method=ga", "model.lora.rank=4", "trainer.lr=0.02")
    assert curve[-1]["forget_loss"] < curve[0]["forget_loss"]
    before = loaded.model.state_dict()
    own = {name: value for name, value in subject.model.named_parameters() if "lora_" not in name}
    assert len(own) == len(before)
    for name, value in own.items():
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        assert not value.requires_grad and torch.equal(value, before[plain]), name
    assert any(bool(value.any()) for name, value in subject.model.named_parameters() if "lora_B" in name)


def test_merged_adapters_give_the_same_nll(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    _, subject = run(world, loaded, tmp_path, "method=npo", "model.lora.rank=4", "model.lora.alpha=64")
    batch = collate(Encoder(loaded.chat, None, Path()).encode(world.forget[:8]), loaded.pad_id)
    with torch.no_grad():
        with_adapters, before = subject.policy.row_nll(batch), loaded.policy.row_nll(batch)
        save_adapter(subject, tmp_path / "adapter")
        plain = merged(subject)
        torch.testing.assert_close(plain.policy.row_nll(batch), with_adapters, rtol=1e-5, atol=1e-5)
    assert plain.model.state_dict().keys() == loaded.model.state_dict().keys()
    assert (with_adapters - before).abs().max() > 0.1
    assert {file.suffix for file in (tmp_path / "adapter").iterdir()} <= {".json", ".safetensors", ".md"}


def test_the_policy_without_adapters_is_the_target(world: Benchmark, loaded: LoadedModel) -> None:
    subject = with_lora(loaded.copy(), rank=4, alpha=16, seed=0)
    batch = collate(Encoder(loaded.chat, None, Path()).encode(world.forget[:8]), loaded.pad_id)
    with torch.no_grad():
        for name, value in subject.model.named_parameters():
            if "lora_B" in name:
                value.normal_(generator=torch.Generator().manual_seed(1))
        assert not torch.allclose(subject.policy.hidden(batch), loaded.policy.hidden(batch), atol=1e-2)
        assert torch.equal(WithoutAdapters(subject.policy).run(batch).hidden, loaded.policy.hidden(batch))


@pytest.mark.parametrize(
    "changed",
    [
        ("trainer.checkpointing=true",),
        ("trainer.checkpointing=true", "model.lora.rank=4"),
        pytest.param(
            ("trainer.compile=true",),
            marks=pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs"),
        ),
    ],
    ids=["checkpointing", "checkpointing-lora", "compile"],
)
def test_checkpointing_and_compiling_keep_the_curve(
    changed: tuple[str, ...], world: Benchmark, loaded: LoadedModel, tmp_path: Path
) -> None:
    """The adversary hooks blocks and perturbs all rows from the first step."""
    shared = ("method=eru", "adversary=rfa", "adversary.warmup=0", "adversary.p=1", "adversary.n=8")
    lora = tuple(o for o in changed if o.startswith("model."))
    expected, _ = run(world, loaded, tmp_path, *shared, *lora)
    found, _ = run(world, loaded, tmp_path, *shared, *changed)
    assert_close(found, expected)
