"""Adapters on 4-bit weights: what is rounded and to what, what the reference is, and which gradients there are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from scipy.stats import norm

from erulab.config.compose import compose_config
from erulab.costs.ledger import Ledger
from erulab.data.rows import Benchmark
from erulab.errors import EnvironmentFault
from erulab.models.loaded import LoadedModel
from erulab.models.loading import save_folder
from erulab.models.quantized import BLOCK
from erulab.models.tiny import TinyModel, TinyOptions
from erulab.ranks import Ranks
from erulab.registry import models
from erulab.tokens.batch import collate
from erulab.tokens.encoder import Encoder
from erulab.training.assembly import Unlearning, assemble_unlearning
from erulab.training.loader import ModelLoader, ModelRef
from erulab.training.loop import train
from erulab.training.unlearning import UnlearningRows

bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

LORA = ("model.lora.rank=4", "adversary=none")
NF4 = (*LORA, "model.lora.quantize=nf4")


@pytest.fixture(scope="module")
def wide(world: Benchmark) -> LoadedModel:
    """A model with rows of whole blocks."""
    return TinyModel(TinyOptions(layers=2, width=BLOCK, heads=2)).load(world, seed=3)


@pytest.fixture(scope="module")
def target(wide: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    folder = tmp_path_factory.mktemp("quantized") / "target"
    save_folder(wide, folder)
    return ModelRef("key", str(folder))


def assembled(world: Benchmark, target: ModelRef, references: Path, *overrides: str) -> Unlearning:
    config = compose_config(
        ["trainer.steps=4", "trainer.global_batch=8", "trainer.lr=1e-2", "trainer.warmup=0", "tracker=none", *overrides]
    )
    loader = ModelLoader(config, models.build(config.model), Ledger(), torch.device("cpu"))
    subject = loader.load_to_train(target)
    rows = [Encoder(subject.chat, None, Path()).encode(part) for part in (world.forget, world.retain)]
    return assemble_unlearning(
        config, loader, target, subject, UnlearningRows(rows[0], [], rows[1]), Ranks(), references
    )


def curve(unlearning: Unlearning) -> list[dict[str, float]]:
    return [values for _, values in train(unlearning.engine, unlearning.objective, unlearning.loop, Ranks())]


def nf4_levels() -> torch.Tensor:
    """The 16 levels of Dettmers et al. (2023): quantiles of the normal distribution, with an exact zero."""
    tail = 0.9677083
    above = norm.ppf(torch.linspace(tail, 0.5, 9)[:-1])
    below = -norm.ppf(torch.linspace(tail, 0.5, 8)[:-1])
    levels = torch.tensor([*below, 0.0, *above]).sort().values
    return (levels / levels.max()).float()


def test_matrices_of_the_blocks_are_rounded_to_nf4_and_nothing_else(
    world: Benchmark, target: ModelRef, wide: LoadedModel, tmp_path: Path
) -> None:
    """Each weight is the nearest level times the largest magnitude of its block, whose own rounding is below 2 %."""
    before = wide.model.state_dict()
    subject = assembled(world, target, tmp_path, "method=npo", *NF4).model
    levels, rounded = nf4_levels(), 0
    for name, weight in subject.model.named_parameters():
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if "lora_" in name:
            assert weight.requires_grad and weight.dtype == torch.float32
            continue
        assert not weight.requires_grad
        if weight.dtype != torch.uint8:
            assert torch.equal(weight, before[plain]), name
            continue
        rounded += 1
        blocks = before[plain].flatten().split(BLOCK)
        found = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state).flatten().split(BLOCK)
        for block, values in zip(blocks, found, strict=True):
            scale = block.abs().max()
            nearest = levels[(block[:, None] / scale - levels).abs().argmin(1)] * scale
            assert (values - nearest).abs().max() <= 0.02 * scale, name
    assert rounded == 7 * len(wide.policy.blocks)


def test_the_reference_is_the_rounded_model(world: Benchmark, target: ModelRef, tmp_path: Path) -> None:
    """npo begins at 2 log 2 / beta, also beside the reference table of the same model in float32."""
    for options in (LORA, NF4):
        unlearning = assembled(world, target, tmp_path, "method=npo", "method.beta=0.5", *options)
        losses = [values["forget_loss"] for values in curve(unlearning)]
        assert losses[0] == pytest.approx(2 * math.log(2) / 0.5, rel=1e-5)
        assert losses[-1] < losses[0]


def test_a_live_reference_is_the_policy_with_its_adapters_off(
    world: Benchmark, target: ModelRef, tmp_path: Path
) -> None:
    losses = [values["retain_loss"] for values in curve(assembled(world, target, tmp_path, "method=kl", *NF4))]
    assert losses[0] == pytest.approx(0.0, abs=1e-6) and losses[-1] > 1e-4


def test_a_forward_in_evaluation_mode_takes_no_gradient_away(
    world: Benchmark, target: ModelRef, tmp_path: Path
) -> None:
    """On CPUs that have bfloat16, bitsandbytes would pack weights anew for products without a backward."""
    unlearning = assembled(world, target, tmp_path, "method=npo", *NF4)
    policy, subject = unlearning.engine.policy, unlearning.model
    batch = collate(Encoder(subject.chat, None, Path()).encode(world.forget[:8]), subject.pad_id)

    def gradients() -> list[torch.Tensor]:
        policy.zero_grad()
        policy.row_nll(batch).mean().backward()
        return [p.grad.clone() for p in policy.parameters() if p.grad is not None]

    first = gradients()
    subject.model.eval()
    with torch.no_grad():
        policy.row_nll(batch)
    subject.model.train()
    assert len(first) == len(gradients()) > 0
    assert all(torch.equal(a, b) for a, b in zip(first, gradients(), strict=True))
    # The adapters' second factors are 0 at the start, and so are the gradients of the first ones.
    assert sum(bool(g.any()) for g in first) == len(first) // 2


def test_what_the_library_misreads_on_cpus_is_refused(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    save_folder(loaded, tmp_path / "narrow")
    with pytest.raises(EnvironmentFault, match="no multiple of 64, and one here has 32"):
        assembled(world, ModelRef("key", str(tmp_path / "narrow")), tmp_path, "method=npo", *NF4)


def test_checkpointing_keeps_the_curve(world: Benchmark, target: ModelRef, tmp_path: Path) -> None:
    plain = curve(assembled(world, target, tmp_path, "method=npo", *NF4))
    again = curve(assembled(world, target, tmp_path, "method=npo", *NF4, "trainer.checkpointing=true"))
    assert [values["loss"] for values in again] == pytest.approx([values["loss"] for values in plain], rel=1e-5)
