"""Resumable checkpoints: written whole or not at all, checked before they are loaded."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from erulab.checksums import find_fault, hash_files, hash_json
from erulab.costs.ledger import Spent
from erulab.errors import IntegrityFault
from erulab.models.shards import save_tensors
from erulab.ranks import Ranks
from erulab.rundir import write_whole
from erulab.training.engine import Engine
from erulab.training.objective import Objective

log = logging.getLogger(__name__)

KEEP = 2
FORMAT = "training-state-3"  # changes with the content of a checkpoint
MANIFEST = "manifest.json"
NEWEST = "newest.json"  # beside the checkpoints: the step of the newest one, so that none is lost without a word


class Checkpoints:
    """The checkpoints of one training, in `folder/step-<n>`, each with a manifest of its files' hashes.

    A manifest carries its own hash and what the training depends on, and only checkpoints of this training are loaded.
    Any engine on any number of processes continues a checkpoint of any other (`training_state`).
    """

    def __init__(self, folder: Path, depends_on: Mapping[str, Any], ranks: Ranks) -> None:
        """
        Args:
            folder: of this training alone.
            depends_on: all that the training depends on, as plain values (the key of its product).
        """
        self._folder, self._ranks = folder, ranks
        self._training = json.loads(json.dumps({"format": FORMAT, **depends_on}, default=str))

    def save(self, step: int, engine: Engine, objective: Objective) -> None:
        """Writes the state after `step` optimizer steps, and removes all but the KEEP newest checkpoints."""
        final = self._folder / f"step-{step:08d}"
        writing = self._folder / f".writing-{step:08d}"
        if self._ranks.first:
            self._remove_unfinished()
            writing.mkdir(parents=True)
        self._ranks.barrier()
        try:
            engine.save(writing / "engine")
            spent = self._ranks.gather_objects(engine.policy.ledger.spent)
            if self._ranks.first:
                save_tensors(objective.state_dict(), writing / "objective.safetensors")
                costs = {**sum(spent, Spent()).plain(), "seconds": engine.policy.ledger.seconds}
                manifest = {"training": self._training, "step": step, "files": hash_files(writing), "costs": costs}
                (writing / MANIFEST).write_text(json.dumps(manifest | {"sha256": hash_json(manifest)}, indent=1))
                shutil.rmtree(final, ignore_errors=True)
                writing.rename(final)
                write_whole(self._folder / NEWEST, json.dumps({"step": step}).encode())
                for old in sorted(self._folder.glob("step-*"))[:-KEEP]:
                    shutil.rmtree(old)
        except Exception:  # the disk may be full: what was written of the checkpoint must not fill it
            if self._ranks.first:
                self._remove_unfinished()
            raise
        self._ranks.barrier()

    def restore(self, engine: Engine, objective: Objective) -> int:
        """Loads the newest valid checkpoint and returns its step; returns 0 if there is no checkpoint.

        Raises:
            IntegrityFault: checkpoints exist or existed, but none can be used: training never silently restarts from
                step 0.
        """
        found = sorted(self._folder.glob("step-*"), reverse=True)
        faults = []
        for folder in found:
            fault, manifest = self._read_manifest(folder)
            if fault is None:
                engine.load(folder / "engine")
                objective.load_state_dict(load_file(folder / "objective.safetensors"))
                # The costs of all processes go on in the first one's ledger, so that sums over ranks stay right.
                costs = manifest["costs"] if self._ranks.first else Spent().plain()
                engine.policy.ledger.resume(Spent.read(costs), manifest["costs"]["seconds"] or 0.0)
                return int(manifest["step"])
            log.warning("checkpoint %s is not used: %s", folder, fault)
            faults.append(f"{folder.name}: {fault}")
        if not found and (self._folder / NEWEST).is_file():
            faults = ["its checkpoints were removed"]
        if faults:
            why = "; ".join(faults)
            raise IntegrityFault(f"no usable checkpoint in {self._folder} ({why}); remove that folder to start anew")
        return 0

    def newest(self) -> Path | None:
        """Returns the folder of the newest checkpoint, None if there is none."""
        return max(self._folder.glob("step-*"), default=None)

    def _remove_unfinished(self) -> None:
        """Removes checkpoints that a process did not finish to write."""
        for writing in self._folder.glob(".writing-*"):
            shutil.rmtree(writing, ignore_errors=True)

    def _read_manifest(self, folder: Path) -> tuple[str | None, dict[str, Any]]:
        """Returns why a checkpoint cannot be used (None if it can), and its manifest."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            intact = manifest.pop("sha256") == hash_json(manifest)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return "its manifest is missing or damaged", {}
        if not intact:
            return "its manifest is damaged", {}
        differing = [
            f"{name} {there}, not {here}" for name, there, here in _differences(manifest["training"], self._training)
        ]
        if differing:
            return f"it belongs to another training: {', '.join(differing[:3])}", {}
        return find_fault(folder, manifest["files"], without=(MANIFEST,)), manifest


def _differences(there: Any, here: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields the dotted names under which two trees of plain values differ, with both values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            yield from _differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        yield name, there, here
