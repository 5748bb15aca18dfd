"""Checkpoints whose files are faulty or made to do harm: one line each, and nothing of theirs is run."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erulab.errors import DataError, ErulabError, IntegrityFault
from erulab.models.folders import check_folder
from erulab.models.loading import chat_of, load_folder, save_folder
from erulab.models.options import Attention
from tests.models.test_loading import of_kind
from tests.samples.hostile import Canary, write_index


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "model"
    save_folder(of_kind("llama"), folder)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def refused(call: Callable[[], object], fault: type[ErulabError], words: str) -> None:
    with pytest.raises(fault) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_pickle_that_an_index_names_is_not_read(folder: Path, tmp_path: Path) -> None:
    """FAULTS 28 and 35: other safetensors in the folder do not make the pickle safe."""
    (folder / "model.bin").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    write_index(folder, {"w": "model.bin"})
    refused(lambda: load_folder(str(folder), Attention.sdpa), IntegrityFault, "pickle files (.bin, .pt) can run code")
    assert not (tmp_path / "canary").exists()
    pickle.loads((folder / "model.bin").read_bytes())
    assert (tmp_path / "canary").exists()  # the canary sings where it is loaded


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/other.safetensors", "sub/a.safetensors", "..", "a\\b"])
def test_an_index_that_leaves_its_folder_is_refused(folder: Path, name: str) -> None:
    """FAULTS 35: even where the file it names is there, because the identity is of the folder alone."""
    shutil.copy(folder / "model.safetensors", folder.parent / "other.safetensors")
    write_index(folder, {"w": name})
    refused(lambda: check_folder(folder), IntegrityFault, "outside of its folder")


def test_missing_shards_and_other_shapes_of_the_index(folder: Path) -> None:
    """FAULTS 35: the missing file is named, and no setting is advised that has no part in it."""
    write_index(folder, {"w": "model-00002-of-00003.safetensors"})
    check_folder(folder)  # transformers reads model.safetensors, and leaves an old index when it saves one file
    (folder / "model.safetensors").rename(folder / "model-00001-of-00003.safetensors")
    refused(lambda: check_folder(folder), IntegrityFault, "lacks model-00002-of-00003.safetensors")
    for content in ("[]", "{}", '{"weight_map": {"w": 3}}', "[" * 200_000, "{"):
        (folder / "model.safetensors.index.json").write_text(content)
        refused(lambda: check_folder(folder), DataError, "model.safetensors.index.json")


def test_shards_may_be_links_as_in_the_cache_of_the_hub(folder: Path) -> None:
    """FAULTS 35: the hub's cache links every file of a snapshot to another folder."""
    shutil.move(folder / "model.safetensors", folder.parent / "blob")
    (folder / "model.safetensors").symlink_to(folder.parent / "blob")
    write_index(folder, {"w": "model.safetensors"})
    check_folder(folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "nonesuch"}, "names model_type nonesuch, which the installed transformers"),
        ({"model_type": None}, "model_type must be the name of an architecture"),
        ({"model_type": 3}, "model_type must be the name of an architecture"),
        ({"num_attention_heads": 3}, "hidden size"),
        ({"hidden_act": "nonesuch"}, "nonesuch"),
        ({"hidden_act": 3}, "hidden_act"),
        ({"rope_parameters": {"rope_type": "nonesuch", "rope_theta": 1.0}}, "nonesuch"),
        ({"rope_parameters": 3}, "rope_parameters"),
        ({"hidden_size": "64"}, "hidden_size must be a whole number above 0, got '64'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be at most"),
        ({"dtype": "float99"}, "dtype must be one of auto, float64"),
        ({"text_config": 3}, "text_config must be an object"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantised (gptq)"),
        ({"quantization_config": {"load_in_4bit": True}}, "is quantised (bitsandbytes, 4 bits)"),
        ({"quantization_config": {"quant_method": "nonesuch"}}, "is quantised (nonesuch)"),
        ({"quantization_config": 3}, "quantization_config must be an object"),
    ],
)
def test_a_faulty_config_is_one_line(folder: Path, fields: dict[str, Any], words: str) -> None:
    """FAULTS 12: whatever transformers makes of it."""
    change(folder / "config.json", **fields)
    refused(lambda: load_folder(str(folder), Attention.sdpa), DataError, words)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("tokenizer.json", {"model": None}),
        ("tokenizer.json", {"model": {"type": "BPE"}}),
        ("tokenizer.json", {"added_tokens": 3}),
        ("tokenizer_config.json", {"added_tokens_decoder": 3}),
    ],
)
def test_a_faulty_tokenizer_is_one_line(folder: Path, name: str, fields: dict[str, Any]) -> None:
    """FAULTS 15: tokenizers raises a bare Exception, transformers whatever comes."""
    change(folder / name, **fields)
    refused(lambda: chat_of(str(folder)), DataError, "model.tokenizer=FOLDER_OR_HUB_ID")


def test_a_limit_of_the_tokenizer_that_is_no_number(folder: Path) -> None:
    """FAULTS 15: transformers believes it, and would fail at the first long text."""
    change(folder / "tokenizer_config.json", model_max_length="x")
    refused(lambda: chat_of(str(folder)), DataError, "model_max_length must be a number, got 'x'")
