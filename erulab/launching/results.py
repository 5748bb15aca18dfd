"""Tells whether the files that a run's stages make are in its folder and whole. Reads no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from erulab.errors import IntegrityFault
from erulab.methods.base import StandIn
from erulab.options import RunConfig, SavedModel, Stage
from erulab.registry import methods
from erulab.rundir import RunDir


def has_results(rundir: RunDir, config: RunConfig) -> bool:
    """Tells whether a run that ended well still has what its stages made: figures to read, a model of its size.

    A file may be deleted or cut after the run; its figures would then be missing from every comparison.
    """
    if Stage.evaluate in config.stages and not _holds(rundir.scores_json, dict):
        return False
    if Stage.attack in config.stages and config.attack and not _holds(rundir.attacks_json, list):
        return False
    makes_model = Stage.unlearn in config.stages and config.model.unlearned is None
    if not makes_model or isinstance(methods.build(config.method), StandIn):
        return True
    saved = {SavedModel.adapter: rundir.adapter, SavedModel.none: None}
    folder = saved.get(config.artifacts.model, rundir.model)
    return folder is None or _is_whole_model(folder)


def _holds(file: Path, kind: type) -> bool:
    """Tells whether a JSON file holds something of this kind."""
    try:
        content: Any = RunDir(file.parent).read_json(file)
    except (OSError, RecursionError, IntegrityFault):
        return False
    return isinstance(content, kind) and bool(content)


def _is_whole_model(folder: Path) -> bool:
    """Tells whether a folder has a config and weights, each file of the size that its header says."""
    weights = list(folder.glob("*.safetensors"))
    has_config = any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
    return has_config and bool(weights) and all(_has_its_size(file) for file in weights)


def _has_its_size(file: Path) -> bool:
    """Tells whether a safetensors file is as long as its header says."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(length, size)))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return False
    return bool(8 + length + max(ends, default=0) == size)
