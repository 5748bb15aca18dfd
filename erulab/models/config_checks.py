"""Checks of a checkpoint's config.json and shard index, before anything is loaded. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erulab.errors import DataError, IntegrityFault
from erulab.json_files import read_json_object

INDEX = "model.safetensors.index.json"
# Formats that transformers turns into full weights as it reads them: FP8 in blocks, and gpt-oss's MXFP4.
READ_AS_FULL_WEIGHTS = ("fp8", "mxfp4")
DTYPES = ("auto", "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
)
MOST_BLOCKS = 10_000  # a file that names more would make transformers build them for hours
DEQUANTIZE = (
    "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
    "M.from_pretrained('{0}').dequantize().save_pretrained('{0}-full'); "
    "T.from_pretrained('{0}').save_pretrained('{0}-full')"
)


def check_config(source: str, config: Mapping[str, Any], file: Path) -> None:
    """Refuses a config.json without a model type, with sizes that are no numbers, or of quantised weights.

    Args:
        source: folder or hub id, for messages and commands.
        config: the content of `file`.
    Raises:
        DataError: one line that names the file and the field.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise DataError(
            f"{file}: model_type must be the name of an architecture such as llama, got {kind!r}; fetch the file again"
        )
    for name in ("text_config", "vision_config"):
        if not isinstance(config.get(name) or {}, dict):
            raise DataError(f"{file}: {name} must be an object, got {config[name]!r:.40}; fetch the file again")
    for part in (config, config.get("text_config") or {}):
        for name in SIZES:
            value = part.get(name)
            if value is not None and not _is_size(value):
                raise DataError(f"{file}: {name} must be a whole number above 0, got {value!r:.40}")
        blocks = part.get("num_hidden_layers")
        if isinstance(blocks, int) and blocks > MOST_BLOCKS:
            raise DataError(f"{file}: num_hidden_layers must be at most {MOST_BLOCKS}, got {blocks!r:.40}")
        for name in ("dtype", "torch_dtype"):
            value = part.get(name)
            if isinstance(value, str):
                value = value.removeprefix("torch.")
            if value is not None and value not in DTYPES:
                raise DataError(f"{file}: {name} must be one of {', '.join(DTYPES)}, got {part[name]!r:.40}")
        _check_full_weights(source, part.get("quantization_config"), file)


def check_index(folder: Path) -> None:
    """Refuses a shard index that names anything but safetensors files of its own folder.

    A shard may be a symbolic link, as all files of the hub's cache are: its name is what must not leave the folder.

    Raises:
        DataError: the index is no JSON of the known shape.
        IntegrityFault: it names a file elsewhere, one of another format, or one that is missing.
    """
    file = folder / INDEX
    if not file.is_file():
        return
    stale = (folder / "model.safetensors").is_file()  # transformers reads that file in its place
    shards = read_json_object(file).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise DataError(f"{file}: weight_map must be an object of weight name: file name; fetch the file again")
    for name in sorted(set(shards.values())):
        if any(sign in name for sign in "/\\\0") or name in (".", ".."):
            raise IntegrityFault(
                f"{file} names {name!r:.80}, a file outside of its folder; fetch index and shards again"
            )
        if not name.endswith(".safetensors"):
            raise IntegrityFault(
                f"{file} names {name!r:.80}, which is no safetensors file; pickle files (.bin, .pt) can run code and "
                "are never read"
            )
        if not (stale or (folder / name).is_file()):
            raise IntegrityFault(f"{folder} lacks {name}, which {INDEX} names; fetch or copy that file again")


def _is_size(value: object) -> bool:
    # Some architectures give a list with one size per layer.
    if isinstance(value, list):
        return all(_is_size(one) for one in value)
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check_full_weights(source: str, quantization: object, file: Path) -> None:
    """Refuses weights that are stored in a quantised form which erulab cannot train or score.

    Raises:
        DataError: they are, or the form is not told as an object.
    """
    if quantization is None:
        return
    if not isinstance(quantization, dict):
        raise DataError(f"{file}: quantization_config must be an object, got {quantization!r:.40}")
    bits = next((f"{n} bits" for n in (4, 8) if quantization.get(f"load_in_{n}bit")), "an unnamed format")
    method = quantization.get("quant_method", f"bitsandbytes, {bits}")
    if method not in READ_AS_FULL_WEIGHTS:
        raise DataError(
            f"{source} is quantised ({method!s:.40}); erulab trains and scores full weights: take the original, or "
            f'dequantise it once, with the packages of that format: python -c "{DEQUANTIZE.format(source)}"'
        )
