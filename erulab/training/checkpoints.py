"""Resumable checkpoints: written whole or not at all, checked before they are loaded."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from erulab.costs.ledger import Spent
from erulab.errors import IntegrityFault
from erulab.ranks import Ranks
from erulab.training.engine import Engine
from erulab.training.objective import Objective

log = logging.getLogger(__name__)

KEEP = 2
# Changes with the content of a checkpoint. The folder's name (stages/cache.py) stands for what a training depends on.
FORMAT = "training-state-2"


class Checkpoints:
    """The checkpoints of one training, in `folder/step-<n>`, each with a manifest of its files' hashes.

    Only folders whose manifest carries this training's key are loaded. Any engine on any number of processes continues
    a checkpoint of any other (`training_state`).
    """

    def __init__(self, folder: Path, key: str, ranks: Ranks) -> None:
        """
        Args:
            folder: of this training alone; its name holds the hash of all that the training depends on.
            key: FORMAT, the layout of the checkpoints.
        """
        self._folder, self._key, self._ranks = folder, key, ranks

    def save(self, step: int, engine: Engine, objective: Objective) -> None:
        """Writes the state after `step` optimizer steps, and removes all but the KEEP newest checkpoints."""
        final = self._folder / f"step-{step:08d}"
        writing = self._folder / f".writing-{step:08d}"
        if self._ranks.first:
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir(parents=True)
        self._ranks.barrier()
        engine.save(writing / "engine")
        spent = self._ranks.gather_objects(engine.policy.ledger.spent)
        if self._ranks.first:
            save_file(objective.state_dict(), writing / "objective.safetensors")
            hashes = {str(f.relative_to(writing)): _sha256(f) for f in sorted(writing.rglob("*")) if f.is_file()}
            costs = {**sum(spent, Spent()).plain(), "seconds": engine.policy.ledger.seconds}
            manifest = {"key": self._key, "step": step, "files": hashes, "costs": costs}
            (writing / "manifest.json").write_text(json.dumps(manifest, indent=1))
            shutil.rmtree(final, ignore_errors=True)
            writing.rename(final)
            for old in sorted(self._folder.glob("step-*"))[:-KEEP]:
                shutil.rmtree(old)
        self._ranks.barrier()

    def restore(self, engine: Engine, objective: Objective) -> int:
        """Loads the newest valid checkpoint and returns its step; returns 0 if there is no checkpoint.

        Raises:
            IntegrityFault: checkpoints exist but none can be used: training never silently restarts from step 0.
        """
        found = sorted(self._folder.glob("step-*"), reverse=True)
        faults = []
        for folder in found:
            fault = self._find_fault(folder)
            if fault is None:
                engine.load(folder / "engine")
                objective.load_state_dict(load_file(folder / "objective.safetensors"))
                manifest = json.loads((folder / "manifest.json").read_text())
                if self._ranks.first:
                    # The costs of all processes go on in the first one's ledger, so that sums over ranks stay right.
                    costs = manifest["costs"]
                    engine.policy.ledger.carry(Spent.read(costs), costs["seconds"] or 0.0)
                return int(manifest["step"])
            log.warning("checkpoint %s is not used: %s", folder, fault)
            faults.append(f"{folder.name}: {fault}")
        if found:
            why = "; ".join(faults)
            raise IntegrityFault(f"no usable checkpoint in {self._folder} ({why}); remove it to start anew")
        return 0

    def newest(self) -> Path | None:
        """Returns the folder of the newest checkpoint, None if there is none."""
        return max(self._folder.glob("step-*"), default=None)

    def clear(self) -> None:
        """Removes all checkpoints, once the training has ended and its product is kept elsewhere."""
        if self._ranks.first:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _find_fault(self, folder: Path) -> str | None:
        """Returns why a checkpoint cannot be used; None if it can."""
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
        except (OSError, ValueError):
            return "its manifest is missing or unreadable"
        if manifest.get("key") != self._key:
            return f"its key is {manifest.get('key')}, wanted is {self._key}"
        for name, digest in manifest["files"].items():
            file = folder / name
            if not file.is_file():
                return f"{name} is missing"
            if _sha256(file) != digest:
                return f"{name} is damaged"
        return None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
