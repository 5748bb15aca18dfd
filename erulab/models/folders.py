"""Finds a checkpoint (folder or hub id), checks that it is safe to load, and hashes its content. Without torch."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erulab import hub
from erulab.checksums import hash_file
from erulab.costs.families import TEXT_PARTS
from erulab.errors import DataError, EnvironmentFault, IntegrityFault
from erulab.json_files import read_json_object
from erulab.models.config_checks import check_config, check_index
from erulab.models.options import ModelOptions

# The files of a checkpoint. Everything else in a repository (README, pickles, code) is neither fetched nor hashed.
TOKENIZER_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
CHECKPOINT_FILES = ("*.safetensors", *TOKENIZER_FILES)
CONVERT = (
    "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
    "M.from_pretrained('{0}').save_pretrained('{0}-safe'); T.from_pretrained('{0}').save_pretrained('{0}-safe')"
)
TEXT_PART = (
    "from transformers import AutoModelForImageTextToText as M, AutoModelForCausalLM as C, AutoTokenizer as T; "
    "m = M.from_pretrained('{0}', dtype='auto'); c = C.from_config(m.config.get_text_config(), dtype=m.dtype); "
    "c.model.load_state_dict(m.model.language_model.state_dict()); c.lm_head.load_state_dict(m.lm_head.state_dict()); "
    "c.save_pretrained('{0}-text'); T.from_pretrained('{0}').save_pretrained('{0}-text')"
)
MERGE = (
    "from peft import AutoPeftModelForCausalLM as M; from transformers import AutoTokenizer as T; "
    "m = M.from_pretrained('{0}').merge_and_unload(); m.save_pretrained('{0}-merged'); "
    "T.from_pretrained(m.name_or_path).save_pretrained('{0}-merged')"
)


def validate_given(options: ModelOptions) -> None:
    """Checks the folders that `model.target`, `model.oracle` and `model.unlearned` name, without loading anything.

    Raises:
        EnvironmentFault, IntegrityFault, DataError: one line each.
    """
    for source in (options.target, *options.oracles, options.unlearned):
        if source is not None:
            check_source(source)


def check_source(source: str) -> None:
    """Checks a folder without loading anything; of a hub id only the form is checked, and nothing is fetched.

    Raises:
        EnvironmentFault: it is neither a folder nor a hub id.
        IntegrityFault: it is unsafe to load.
        DataError: config.json is damaged, or of a model that reads images too.
    """
    if Path(source).is_dir():
        check_folder(Path(source))
    elif hub.is_missing_folder(source):
        raise EnvironmentFault(
            f"model folder {source}: no such folder in {Path(source).parent}/; if you mean a hub id, fetch it first: "
            f"hf download {source}"
        )
    elif not hub.is_hub_id(source):
        raise EnvironmentFault(f"model folder {source} does not exist, and it is no hub id (owner/name)")


def check_folder(folder: Path) -> None:
    """Refuses folders that could run code or hold no whole model, without loading anything.

    Raises:
        EnvironmentFault: there is no config.json.
        IntegrityFault: the weights are pickles, lie elsewhere or are incomplete, or the folder brings code of its own.
        DataError: a JSON file is damaged, the folder holds an adapter without its base model, the model reads images
            too, or its weights are quantised.
    """
    if (folder / "adapter_config.json").is_file():
        # transformers would load the base model that the file names in place of the folder's own weights.
        raise DataError(
            f"{folder} holds a LoRA adapter (adapter_config.json), no whole model; put it on its base model once: "
            f'python -c "{MERGE.format(folder)}"'
        )
    if not (folder / "config.json").is_file():
        raise EnvironmentFault(f"{folder} holds no config.json: it is no Hugging Face model folder")
    for name in ("config.json", "tokenizer_config.json"):
        file = folder / name
        if file.is_file() and "auto_map" in read_json_object(file):
            raise IntegrityFault(
                f"{file} names code of its own (auto_map), which erulab never runs; if transformers knows this "
                "architecture, remove auto_map from the file"
            )
    if not any(folder.glob("*.safetensors")):
        raise IntegrityFault(
            f"{folder} holds no safetensors weights, and pickle files (.bin, .pt) can run code; convert them once, "
            f'if you trust them: python -c "{CONVERT.format(folder)}"'
        )
    check_index(folder)
    config = read_json_object(folder / "config.json")
    check_config(str(folder), config, folder / "config.json")
    _check_text_only(str(folder), config)


def _check_text_only(source: str, config: dict[str, object]) -> None:
    """Refuses models that read images too, unless transformers loads their text part by itself.

    Raises:
        DataError: the model reads images too.
    """
    kind = config.get("model_type")
    if "vision_config" in config and kind not in TEXT_PARTS:
        raise DataError(
            f"{source} is a model of images and text (model_type {kind}), and erulab trains models of text; save its "
            f'text part once: python -c "{TEXT_PART.format(source)}"'
        )


def check_tokenizer(source: str) -> None:
    """Checks a tokenizer's folder without loading it; of a hub id only the form is checked.

    Raises:
        EnvironmentFault: it is neither a folder with a tokenizer nor a hub id.
    """
    folder = Path(source)
    files = ("tokenizer.json", "tokenizer_config.json")
    if folder.is_dir() and not any((folder / name).is_file() for name in files):
        raise EnvironmentFault(
            f"{source} holds no tokenizer ({' or '.join(files)}); type model.tokenizer=FOLDER_OR_HUB_ID"
        )
    if not folder.is_dir() and not hub.is_hub_id(source):
        raise EnvironmentFault(f"no tokenizer at {source}: it does not exist, and is no hub id (owner/name)")


@functools.cache
def tokenizer_folder(source: str) -> Path:
    """Returns the tokenizer's folder on this machine, after fetching it from the hub (without weights) if needed.

    Raises:
        EnvironmentFault: as `check_tokenizer`; or the hub is unreachable, the repository gated or missing.
    """
    check_tokenizer(source)
    return (
        Path(source) if Path(source).is_dir() else hub.fetch_snapshot(source, "model", TOKENIZER_FILES, skip=("*/*",))
    )


def read_config(source: str) -> dict[str, object] | None:
    """Reads config.json of a folder, or of a hub id that was fetched before; returns None for other hub ids.

    Raises:
        EnvironmentFault: it is neither a folder with config.json nor a hub id.
        DataError: config.json is damaged.
    """
    folder = Path(source)
    if not folder.is_dir():
        check_source(source)
        file = hub.find_fetched(source, "config.json")
        return None if file is None else read_json_object(file)
    if not (folder / "config.json").is_file():
        raise EnvironmentFault(f"{folder} holds no config.json: it is no Hugging Face model folder")
    return read_json_object(folder / "config.json")


def depth_of(config: Mapping[str, Any]) -> int | None:
    """Returns the number of blocks that the content of a config.json names; None if its key is not known."""
    text: Mapping[str, Any] = config.get("text_config", config)  # of a model of text and images
    found = text.get("num_hidden_layers", text.get("n_layer"))
    return found if isinstance(found, int) else None


@functools.cache
def local_folder(source: str) -> Path:
    """Returns a checkpoint's folder on this machine, after fetching it from the hub if needed and checking it.

    Raises:
        EnvironmentFault: the folder is missing; or the hub is unreachable, the repository gated or missing.
        IntegrityFault, DataError: as `check_folder`.
    """
    check_source(source)
    folder = (
        Path(source) if Path(source).is_dir() else hub.fetch_snapshot(source, "model", CHECKPOINT_FILES, skip=("*/*",))
    )
    check_folder(folder)
    return folder


def folder_identity(source: str) -> str:
    """Returns a checkpoint's identity by content: the commit of a hub id, or the hash of a folder's files."""
    folder = local_folder(source)
    if folder != Path(source):
        return f"commit:{folder.name}"  # the hub's cache names a snapshot's folder by its commit
    return files_identity(folder)


def files_identity(folder: Path) -> str:
    """Hashes the files of a folder that are parts of a checkpoint."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in CHECKPOINT_FILES for file in folder.glob(pattern)}):
        digest.update(f"{file.name}\x1f{hash_file(file)}\x1f".encode())
    return digest.hexdigest()[:32]
