"""Checkpoints: saving and loading, and the one line that refuses each checkpoint that cannot be used."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from erulab.data.rows import Benchmark, Row
from erulab.errors import DataError, EnvironmentFault, ErulabError, IntegrityFault
from erulab.models.hf import HfModel, HfOptions
from erulab.models.loaded import LoadedModel
from erulab.models.loading import chat_of, check_layout, folder_identity, load_folder, save_folder
from erulab.models.options import Attention
from erulab.models.tiny import TinyModel, TinyOptions
from erulab.tokens.batch import collate
from erulab.tokens.chat import ChatFormat
from erulab.tokens.templates import PromptOverrides
from tests.models.conftest import SPECIAL, byte_level, tiny_model

QUESTION, ANSWER = "What does Bela write?", "Bela writes satire."


def of_kind(kind: str, **changes: object) -> LoadedModel:
    tokenizer = byte_level()
    return LoadedModel(tiny_model(kind, **changes), tokenizer, ChatFormat(tokenizer, 256))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_folder(of_kind("llama"), tmp_path / "model")
    return tmp_path / "model"


def refused(folder: Path, fault: type[ErulabError], attention: Attention = Attention.sdpa) -> str:
    with pytest.raises(fault) as caught:
        load_folder(str(folder), attention)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


# Families that do something to their logits after the head, beside those in SPECIAL.
SCALED: dict[str, dict[str, object]] = {"granite": {"logits_scaling": 4.0}, "cohere": {"logit_scale": 0.5}}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "phi3", "gemma", "mistral", *SPECIAL, *SCALED])
def test_a_saved_model_loads_equal_and_its_nll_is_that_of_transformers(kind: str, tmp_path: Path) -> None:
    saved = of_kind(kind, pad_token_id=0, bos_token_id=0, eos_token_id=0, **SCALED.get(kind, {}))
    save_folder(saved, tmp_path / "model")
    loaded = load_folder(str(tmp_path / "model"), Attention.eager)
    assert all(torch.equal(v, saved.model.state_dict()[k]) for k, v in loaded.model.state_dict().items())
    assert loaded.chat.identity()["tokenizer"] == saved.chat.identity()["tokenizer"]
    row = loaded.chat.encode(Row("r", QUESTION, ANSWER))
    batch = collate([row], loaded.pad_id)
    labels = batch.input_ids.masked_fill(~batch.supervised, -100)
    with torch.no_grad():
        mean = loaded.model(input_ids=batch.input_ids, labels=labels).loss
        assert torch.allclose(loaded.policy.row_nll(batch) / row.tokens, mean, rtol=1e-5)
    assert not loaded.model.training and loaded.model.dtype is torch.float32


def test_the_embedded_model_loads_equal_with_its_tokenizer(benchmark: Benchmark, tmp_path: Path) -> None:
    saved = TinyModel(TinyOptions(layers=1, width=16, heads=2)).load(benchmark, 0)
    save_folder(saved, tmp_path / "model")
    loaded = load_folder(str(tmp_path / "model"), Attention.sdpa)
    # The identity too, not only the ids: AutoTokenizer may rebuild the tokenizer of a known model type and change it.
    assert loaded.chat.identity() == saved.chat.identity() == chat_of(str(tmp_path / "model")).identity()
    row = saved.chat.encode(Row("r", QUESTION, ANSWER))
    assert loaded.chat.encode(Row("r", QUESTION, ANSWER)) == row
    assert loaded.chat.decode(row.ids[row.start :]) == ANSWER


def test_the_weights_of_an_engine_are_saved_in_place_of_the_models_own(tmp_path: Path) -> None:
    loaded = of_kind("llama", tie_word_embeddings=True)
    weights = {name: value.detach() + 1 for name, value in loaded.model.named_parameters()}
    save_folder(loaded, tmp_path / "model", iter(weights.items()))
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert set(stored) == set(weights)  # the tied head once
    again = load_folder(str(tmp_path / "model"), Attention.sdpa).model
    assert all(torch.equal(value, weights[name]) for name, value in again.named_parameters())
    save_folder(loaded, tmp_path / "whole")
    for name in ("config.json", "generation_config.json"):
        assert (tmp_path / "model" / name).read_text() == (tmp_path / "whole" / name).read_text()
    taken = iter(weights.items())
    save_folder(loaded, tmp_path / "other", taken, write=False)  # a rank that only helps to gather
    assert not (tmp_path / "other").exists() and next(taken, None) is None


def test_a_large_model_is_saved_in_files_of_limited_size(tmp_path: Path) -> None:
    """There are several files, each within the limit, and an index by which from_pretrained finds every tensor."""
    loaded = of_kind("llama")
    weights = dict(loaded.model.named_parameters())
    save_folder(loaded, tmp_path / "model", iter(weights.items()), shard_bytes=30_000)
    files = sorted((tmp_path / "model").glob("model-*.safetensors"))
    assert len(files) > 2 and not (tmp_path / "model" / "model.safetensors").exists()
    sizes = [sum(value.nbytes for value in load_file(file).values()) for file in files]
    assert max(sizes) <= 30_000 and sum(sizes) == sum(value.nbytes for value in weights.values())
    again = load_folder(str(tmp_path / "model"), Attention.sdpa).model
    assert all(torch.equal(value, weights[name]) for name, value in again.named_parameters())


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    save_folder(of_kind("llama", tie_word_embeddings=True), tmp_path / "model")
    model = load_folder(str(tmp_path / "model"), Attention.sdpa).model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_saving_replaces_a_folder_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = folder_identity(str(folder))
    other = of_kind("llama", hidden_act="gelu")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(other.tokenizer, "save_pretrained", full)
        with pytest.raises(OSError, match="No space"):
            save_folder(other, folder)
    assert folder_identity(str(folder)) == before
    assert [file.name for file in folder.parent.iterdir()] == ["model"]
    save_folder(other, folder)
    assert folder_identity(str(folder)) != before


def test_the_identity_depends_on_content_and_not_on_path_or_readme(folder: Path, tmp_path: Path) -> None:
    """FAULTS 32."""
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    (copy / "README.md").write_text("notes")
    assert folder_identity(str(copy)) == folder_identity(str(folder))
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert folder_identity(str(copy)) != folder_identity(str(folder))


def test_pickles_are_refused_with_the_command_that_converts_them(folder: Path) -> None:
    """FAULTS 28."""
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    message = refused(folder, IntegrityFault)
    assert "safetensors" in message and "save_pretrained" in message


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_in_a_folder_is_refused(folder: Path, name: str) -> None:
    """FAULTS 28."""
    config = json.loads((folder / name).read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (folder / name).write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    assert "auto_map" in refused(folder, IntegrityFault)
    assert not (folder / "ran").exists()


def test_damaged_weights_are_refused(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "damaged" in refused(folder, IntegrityFault)


def test_overlapping_offsets_are_refused(folder: Path) -> None:
    """FAULTS 28."""
    content = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    first, second = [name for name in header if name != "__metadata__"][:2]
    header[second] = header[first]
    changed = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + size :])
    assert "damaged" in refused(folder, IntegrityFault)


def test_missing_weights_are_refused_and_not_drawn_at_random(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in refused(folder, IntegrityFault)


def test_a_folder_without_or_with_a_broken_config_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "config.json" in refused(folder, DataError)
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refused(tmp_path / "empty", EnvironmentFault)
    refused(tmp_path / "absent", EnvironmentFault)


def test_a_tokenizer_larger_than_the_embeddings_is_refused(tmp_path: Path) -> None:
    """FAULTS 15."""
    loaded = of_kind("llama", vocabulary=100)
    save_folder(loaded, tmp_path / "model")
    largest = max(loaded.tokenizer.get_vocab().values())
    message = refused(tmp_path / "model", DataError)
    assert f"up to {largest}" in message and "100 embeddings" in message


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        # OPT 350M: no norm after the last block
        (
            "opt",
            {"ffn_dim": 32, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
            "does not know the layout",
        ),
    ],
)
def test_architectures_that_policy_would_misread_are_refused(
    kind: str, changes: dict[str, object], words: str, tmp_path: Path
) -> None:
    changes = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, **changes}
    save_folder(of_kind(kind, **changes), tmp_path / "model")
    assert re.search(words, refused(tmp_path / "model", DataError, Attention.eager))


def test_logits_that_are_changed_in_an_unknown_way_are_refused() -> None:
    loaded = of_kind("llama")
    own = loaded.model.forward

    def doubled(**inputs: object) -> object:
        found = own(**inputs)
        found.logits = 2 * found.logits
        return found

    loaded.model.forward = doubled
    with pytest.raises(DataError, match="LlamaForCausalLM changes its logits after the head .*: NLL "):
        check_layout(loaded, "folder")


def test_a_model_without_sdpa_is_refused_with_what_to_type(tmp_path: Path) -> None:
    """FAULTS 37."""
    of_kind("gpt_oss", num_local_experts=4, attn_implementation="eager").model.save_pretrained(tmp_path / "model")
    of_kind("llama").tokenizer.save_pretrained(tmp_path / "model")
    message = refused(tmp_path / "model", DataError)
    assert "gpt_oss" in message and message.endswith("type model.attention=eager")


def test_an_unavailable_attention_is_named_in_the_error(folder: Path) -> None:
    if importlib.util.find_spec("flash_attn") is not None:
        pytest.skip("flash_attn is installed")
    with pytest.raises((EnvironmentFault, DataError), match=r"model\.attention=") as caught:
        load_folder(str(folder), Attention.flash_attention_2)
    assert "\n" not in str(caught.value)


def test_the_context_is_that_of_the_models_config(tmp_path: Path) -> None:
    save_folder(of_kind("llama", max_position_embeddings=32), tmp_path / "model")
    assert chat_of(str(tmp_path / "model")).identity()["context"] == 32


def test_a_checkpoint_without_a_tokenizer_takes_the_named_one(folder: Path, tmp_path: Path) -> None:
    known = load_folder(str(folder), Attention.sdpa).chat.identity()
    (tmp_path / "words").mkdir()
    for file in folder.glob("*token*"):
        shutil.move(file, tmp_path / "words")
    for file in folder.glob("*.jinja"):
        shutil.move(file, tmp_path / "words")
    assert "model.tokenizer=FOLDER_OR_HUB_ID" in refused(folder, DataError)
    overrides = PromptOverrides(tokenizer=str(tmp_path / "words"))
    assert load_folder(str(folder), Attention.sdpa, overrides).chat.identity() == known
    assert chat_of(str(folder), overrides).identity() == known
    for wrong, words in ((str(folder), r"holds no tokenizer \(tokenizer.json"), ("./nowhere", "does not exist")):
        with pytest.raises(EnvironmentFault, match=words):
            HfModel(HfOptions(path=str(folder), tokenizer=wrong)).validate()
