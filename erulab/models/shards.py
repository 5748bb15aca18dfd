"""Writes safetensors files from a stream of tensors, with at most one file's content in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file

from erulab.rundir import give_usual_permissions

SHARD_BYTES = 5_000_000_000  # per file, as Hugging Face writes them


def save_tensors(tensors: dict[str, torch.Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file that others may read as far as the umask lets them: the library makes it private."""
    save_file(tensors, file, metadata)
    give_usual_permissions(file)


def write_shards(
    tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, stem: str, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes `<stem>.safetensors`; if that is too large, numbered files and Hugging Face's index of them.

    Args:
        tensors: names and contiguous tensors on the CPU, taken one at a time.
        shard_bytes: the most per file, unless a single tensor is larger.
    """
    shards: list[list[str]] = []
    pending: dict[str, torch.Tensor] = {}
    size = total = 0

    def write() -> None:
        save_tensors(pending, folder / _part_file(stem, len(shards)), {"format": "pt"})
        shards.append(list(pending))
        pending.clear()

    for name, tensor in tensors:
        if pending and size + tensor.nbytes > shard_bytes:
            write()
            size = 0
        pending[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    write()
    if len(shards) == 1:
        (folder / _part_file(stem, 0)).rename(folder / f"{stem}.safetensors")
        return
    index: dict[str, str] = {}
    for number, names in enumerate(shards):  # file names hold the number of files, which is known only now
        final = f"{stem}-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / _part_file(stem, number)).rename(folder / final)
        index |= dict.fromkeys(names, final)
    content = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(content, indent=2))


def _part_file(stem: str, number: int) -> str:
    return f"{stem}-{number + 1:05d}.part"
