"""Every model family of the presets: blocks and norm are found, adapters and hooks are at the right modules."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from erulab.costs.shapes import ModelShape
from erulab.data.rows import Benchmark
from erulab.errors import ConfigError
from erulab.models.loaded import LoadedModel
from erulab.models.loading import check_layout
from erulab.models.lora import with_lora
from erulab.models.presets import PRESETS
from erulab.tokens.batch import collate
from erulab.tokens.chat import ChatFormat
from erulab.tokens.encoder import Encoder
from tests.models.conftest import byte_level, tiny_model
from tests.training.test_assembly import run

FUSED = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
SPLIT = {*ATTENTION, "gate_proj", "up_proj", "down_proj"}
# The linear layers of a block, by the names of transformers' modeling files. Experts are none.
FAMILIES = {
    "llama": SPLIT,
    "mistral": SPLIT,
    "gemma": SPLIT,
    "gemma2": SPLIT,
    "gemma3_text": SPLIT,
    "mixtral": ATTENTION,
    "qwen3_moe": ATTENTION,
    "olmoe": ATTENTION,
    "qwen3_5_text": {*SPLIT, "in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj"},
    "qwen2": SPLIT,
    "qwen3": SPLIT,
    "phi": {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"},
    "phi3": FUSED,
}
# Losses that each family is trained with.
METHODS = ("eru", "npo", "rmu")
every_family = pytest.mark.parametrize("kind", FAMILIES)


def of_kind(kind: str) -> LoadedModel:
    tokenizer = byte_level()
    model = tiny_model(kind, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    return LoadedModel(model, tokenizer, ChatFormat(tokenizer, 256))


def test_all_families_of_the_presets_are_tested_here() -> None:
    assert {preset.config["model_type"] for preset in PRESETS.values()} <= FAMILIES.keys()


@every_family
def test_blocks_norm_and_head_are_those_of_transformers(kind: str, world: Benchmark) -> None:
    """Each h_l equals transformers' hidden state, and head(norm(h_L)) its logits."""
    loaded = of_kind(kind)
    check_layout(loaded, kind)
    policy = loaded.policy
    seen: dict[int, torch.Tensor] = {}
    sites = [*policy.blocks, policy.norm]
    for layer, module in enumerate(sites):

        def watch(_: object, args: tuple[torch.Tensor, ...], layer: int = layer) -> None:
            seen[layer] = args[0].detach()

        module.register_forward_pre_hook(watch)
    batch = collate(Encoder(loaded.chat, None, Path()).encode(world.forget[:1]), loaded.pad_id)
    with torch.no_grad():
        output = loaded.model(input_ids=batch.input_ids, output_hidden_states=True)
        assert len(sites) == loaded.model.config.num_hidden_layers + 1
        for layer in range(len(sites) - 1):
            assert torch.equal(seen[layer], output.hidden_states[layer]), layer
        torch.testing.assert_close(policy.head(policy.norm(seen[len(sites) - 1])), output.logits)


@every_family
def test_adapters_go_on_all_linear_layers_of_the_blocks(kind: str) -> None:
    adapted = with_lora(of_kind(kind), rank=2, alpha=4, seed=0)
    found = [name.split(".")[-4] for name, _ in adapted.model.named_parameters() if ".lora_A." in name]
    assert set(found) == FAMILIES[kind]
    # Two blocks, nothing else; one of Qwen 3.5's is recurrent.
    assert len(found) == (15 if kind == "qwen3_5_text" else 2 * len(FAMILIES[kind]))
    assert set(ModelShape.from_config(adapted.model.config.to_dict()).adaptable) == FAMILIES[kind]
    some = sorted(FAMILIES[kind])[:2]
    adapted = with_lora(of_kind(kind), rank=2, alpha=4, seed=0, targets=some)
    assert {name.split(".")[-4] for name, _ in adapted.model.named_parameters() if ".lora_A." in name} == set(some)
    with pytest.raises(ConfigError, match=r"model\.lora\.targets: nope is no linear layer"):
        with_lora(of_kind(kind), rank=2, alpha=4, seed=0, targets=[some[0], "nope"])


@every_family
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "options",
    [("adversary=rfa", "adversary.n=4", "adversary.warmup=0"), ("adversary=none", "model.lora.rank=2")],
    ids=["rfa", "lora"],
)
def test_two_unlearning_steps(
    kind: str, method: str, options: tuple[str, ...], world: Benchmark, tmp_path: Path
) -> None:
    loaded = of_kind(kind)
    if method == "rmu" and "model.lora.rank=2" in options and FAMILIES[kind] == ATTENTION:
        # It trains the matrices that experts write with, and those get no adapters.
        with pytest.raises(ConfigError, match="trains none of the weights that have adapters.* model.lora.rank=0"):
            run(world, loaded, tmp_path, f"method={method}", "trainer.steps=2", *options)
        return
    curve, subject = run(world, loaded, tmp_path, f"method={method}", "trainer.steps=2", *options)
    check_two_steps(curve, subject, loaded)


@every_family
def test_two_steps_against_perturbed_states(kind: str, world: Benchmark, tmp_path: Path) -> None:
    loaded = of_kind(kind)
    options = ("method=npo", "trainer.steps=2", "adversary=latent_pgd", "adversary.steps=2")
    check_two_steps(*run(world, loaded, tmp_path, *options), loaded)


def check_two_steps(curve: list[dict[str, float]], subject: LoadedModel, loaded: LoadedModel) -> None:
    """Checks that all figures are finite, an adversary did something, and what is trained has changed."""
    assert len(curve) == 2
    assert all(math.isfinite(value) for metrics in curve for value in metrics.values())
    assert curve[0].get("adversary/gain") != 0
    if subject.adapters.rank:
        assert any(bool(p.any()) for name, p in subject.model.named_parameters() if "lora_B" in name)
        return
    trained = {name: p for name, p in subject.policy.blocks.named_parameters() if p.requires_grad and p.dim() > 1}
    before = dict(loaded.policy.blocks.named_parameters())
    assert trained and all(not torch.equal(new, before[name]) for name, new in trained.items())
