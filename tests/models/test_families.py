"""What is special about each family: padding and packing do not matter, generation, attacks, and images are refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from transformers import PreTrainedModel

from erulab.adversaries.hooks import residual_writers
from erulab.attacks.abliterate import remove_direction
from erulab.attacks.prune import zero_smallest
from erulab.attacks.weights.linear_layers import rewrite_weights
from erulab.errors import DataError
from erulab.evaluation.generation import SHARED, generate
from erulab.models import packing
from erulab.models.attention import PACKED, PACKING
from erulab.models.dropout import disable_dropout
from erulab.models.folders import TEXT_PART, check_source
from erulab.models.loaded import LoadedModel
from erulab.models.loading import load_folder, save_folder
from erulab.models.options import Attention
from erulab.models.policy import Policy
from erulab.ranks import Ranks
from erulab.tokens.batch import collate
from erulab.tokens.chat import ChatFormat
from tests.evaluation.test_generation import PROMPTS, Numbers, naive, prompts
from tests.models.conftest import IDS, SPECIAL, byte_level, tiny_model
from tests.samples.tiny import FORGET, PAIRED, RETAIN

ROWS = [*FORGET, *PAIRED, *RETAIN]
MIXTURES = ("mixtral", "qwen3_moe", "olmoe")
every_family = pytest.mark.parametrize("kind", SPECIAL)


def small_model(kind: str) -> PreTrainedModel:
    return tiny_model(kind, attn_implementation=PACKED if kind in PACKING else "sdpa")


def true_nll(model: PreTrainedModel) -> torch.Tensor:
    """Computes each supervised token's NLL from the logits of transformers' own forward, one row at a time."""
    found = []
    for row in ROWS:
        ids = torch.tensor([row.ids])
        logits = model(input_ids=ids).logits[0, row.start - 1 : row.end - 1]
        found.append(F.cross_entropy(logits, ids[0, row.start : row.end], reduction="none"))
    return torch.cat(found)


@every_family
def test_nll_is_that_of_transformers_with_and_without_padding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(small_model(kind))
    batch, expected = collate(ROWS, 0), true_nll(policy.model)

    def nll_of(hidden: torch.Tensor) -> torch.Tensor:
        labels = batch.input_ids[batch.supervised]
        return -policy.head(hidden).log_softmax(-1).gather(1, labels[:, None])[:, 0]

    def padded(columns: int) -> torch.Tensor:
        rows = [F.pad(one, (0, columns)) for one in (batch.input_ids, batch.attention_mask, batch.supervised)]
        longer = dataclasses.replace(batch, input_ids=rows[0], attention_mask=rows[1], supervised=rows[2])
        return nll_of(policy.hidden_padded(longer))

    with torch.no_grad():
        # 70 more columns: more than a chunk of the recurrent layers, and than all windows.
        for found in (padded(0), padded(70)):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        monkeypatch.setattr(packing, "CALL", -1)
        monkeypatch.setattr(packing, "SHORTEST_SHARED", 2)
        torch.testing.assert_close(nll_of(policy.hidden(batch)), expected, rtol=1e-5, atol=1e-5)
    assert (policy._latest.packing is not None) == (kind in PACKING)


@every_family
def test_responses_are_those_of_an_argmax_loop(kind: str) -> None:
    """Prompts of several lengths with a common opening, and responses that end at different steps. FAULTS 37."""
    model = small_model(kind)
    opening = " ".join(str(2 + 5 * i % 90) for i in range(SHARED))
    opened = [f"{opening} {prompt}" for prompt in PROMPTS]
    with torch.no_grad():
        stop = int(naive(model, PROMPTS[0], ()).split()[3])
        expected = [[naive(model, text, (stop,)) for text in texts] for texts in (PROMPTS, opened)]
    loaded = LoadedModel(model, None, Numbers((stop,)))  # type: ignore[arg-type]
    assert [generate(loaded, prompts(texts), 10_000, Ranks()) for texts in (PROMPTS, opened)] == expected


@every_family
def test_the_weights_of_an_engine_load_as_they_are(kind: str, tmp_path: Path) -> None:
    """Experts are written in one tensor per layer then, and not one by one as `save_pretrained` does."""
    tokenizer = byte_level()
    saved = LoadedModel(small_model(kind), tokenizer, ChatFormat(tokenizer, 256))
    weights = {name: (value.detach() * 1.1).contiguous() for name, value in saved.model.named_parameters()}
    save_folder(saved, tmp_path / "model", iter(weights.items()))
    again = load_folder(str(tmp_path / "model"), Attention.sdpa).model
    assert all(torch.equal(value, weights[name]) for name, value in again.named_parameters())


@pytest.mark.parametrize("kind", [*MIXTURES, "qwen3_5_text"])
def test_nothing_is_written_along_a_removed_direction(kind: str) -> None:
    """The experts' last matrices change, and so does that of recurrent layers."""
    policy = Policy(small_model(kind))
    r = F.normalize(torch.randn(16, generator=torch.Generator().manual_seed(4)), dim=0)
    along: list[float] = []

    def watch(module: torch.nn.Module, args: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        states = output[0] if isinstance(output, tuple) else output
        along.append(float((states @ r).abs().max()))

    for module in residual_writers(policy):
        module.register_forward_hook(watch)
    with torch.no_grad():
        policy(collate(ROWS, 0))
        assert len(along) == 4 and min(along) > 1e-2
        along.clear()
        remove_direction(policy, r)
        policy(collate(ROWS, 0))
    assert len(along) == 4 and max(along) < 1e-4


@pytest.mark.parametrize("kind", MIXTURES)
def test_each_experts_matrices_lose_their_share(kind: str) -> None:
    """FAULTS 37."""
    model = small_model(kind)
    router = model.model.layers[0].mlp.gate.weight.clone()
    rewrite_weights(LoadedModel(model, None, None), lambda weight: zero_smallest(weight, 0.25))  # type: ignore[arg-type]
    for layer in model.model.layers:
        for weights in (layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj):
            assert [int((one == 0).sum()) for one in weights] == [weights[0].numel() // 4] * 4
    assert torch.equal(model.model.layers[0].mlp.gate.weight, router)


def test_training_draws_no_noise() -> None:
    """Mixtral multiplies what its experts read by random numbers in training mode, if its config says so."""
    model = tiny_model("mixtral", router_jitter_noise=0.5).train()
    disable_dropout(model)
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def images_and_text(kind: str, vision: dict[str, object]) -> PreTrainedModel:
    text = tiny_model(kind).config.to_dict()
    name = kind.removesuffix("_text")
    config = transformers.AutoConfig.for_model(name, text_config=text, vision_config=vision, **IDS)
    return transformers.AutoModelForImageTextToText.from_config(config)


def save(model: PreTrainedModel, folder: Path) -> str:
    model.save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return str(folder)


def test_a_model_of_images_is_refused_with_the_command_that_saves_its_text_part(tmp_path: Path) -> None:
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = images_and_text("gemma3_text", {**vision, "image_size": 28, "patch_size": 14})
    folder = save(model, tmp_path / "gemma")
    with pytest.raises(
        DataError, match="model of images and text .model_type gemma3.*save its text part once"
    ) as caught:
        check_source(folder)
    assert "\n" not in str(caught.value) and TEXT_PART.format(folder) in str(caught.value)
    exec(TEXT_PART.format(folder))
    check_source(f"{folder}-text")
    loaded = load_folder(f"{folder}-text", Attention.sdpa)
    ids = torch.tensor([[3, 40, 5, 60, 7]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_of_qwen_3_5_the_text_part_is_loaded(tmp_path: Path) -> None:
    vision = {"hidden_size": 16, "intermediate_size": 16, "depth": 1, "num_heads": 2, "out_hidden_size": 16}
    model = images_and_text("qwen3_5_text", vision)
    folder = save(model, tmp_path / "qwen")
    assert json.loads((Path(folder) / "config.json").read_text())["model_type"] == "qwen3_5"
    check_source(folder)
    loaded = load_folder(folder, Attention.sdpa)
    ids = torch.tensor([[3, 40, 5, 60, 7]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(input_ids=ids).logits, model(input_ids=ids).logits)
    save_folder(loaded, tmp_path / "saved")
    again = load_folder(str(tmp_path / "saved"), Attention.sdpa)
    assert again.model.config.model_type == "qwen3_5_text"
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), loaded.model.parameters(), strict=True))
