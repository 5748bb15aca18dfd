"""The smallest world in which every stage runs, and what is compared of two runs in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erulab.rundir import CARD

SMALLEST = (
    "dataset.forget_authors=2",
    "dataset.retain_authors=2",
    "dataset.unrehearsed_authors=1",
    "dataset.unseen_authors=1",
    "dataset.general_facts=2",
    "model.layers=2",
    "model.width=16",
    "model.heads=2",
    "target.epochs=2",
    "target.global_batch=16",
    "target.lr=1e-2",
    "trainer.steps=6",
    "trainer.global_batch=8",
    "trainer.lr=1e-3",
    "evaluation.max_new_tokens=4",
    "attack=[quantize]",
    "tracker=none",
)
# One that reads the target, one that reads the target's responses, one with a reference and an adversary, one that
# trains no step.
METHODS: dict[str, tuple[str, ...]] = {
    "eru": (),
    "npo": ("method=npo", "reward=reference"),
    "rmu": ("method=rmu",),
    "simnpo": ("method=simnpo", "reward=reference_free"),
    "pdu": ("method=pdu",),
    "task_vector": ("method=task_vector",),
    "altpo": ("method=altpo", "reward=reference", "method.alternatives=1"),
}
# Figures that depend on the machine and on what else it does.
MACHINE = ("seconds", "time", "rows_per_second", "cost/seconds", "cost/peak_memory_gb")
LITTER = (".writing-*", "*.tmp", "*.partial", ".entry.json", ".newest.json", ".*.json.*", ".*.jsonl.*")


def overrides(output: Path, *more: str, engine: Sequence[str] = ("engine=local",)) -> list[str]:
    """Returns the overrides of a run in the smallest world."""
    replaced = {option.partition("=")[0] for option in more}
    kept = [option for option in SMALLEST if option.partition("=")[0] not in replaced]
    return [*kept, *engine, f"output={output}", *more]


@dataclass(frozen=True)
class Outcome:
    """What a run gave: hashes of weights, and every figure that is not about this run's own costs."""

    parts: dict[str, Any]

    def difference(self, other: Outcome) -> str | None:
        """Returns the first part that differs, None if none does."""
        for name in sorted({*self.parts, *other.parts}):
            if self.parts.get(name) != other.parts.get(name):
                return f"{name}: {_first_difference(self.parts.get(name), other.parts.get(name))}"
        return None


def outcome(output: Path) -> Outcome:
    """Reads what the only run under `output` gave.

    Raises:
        FileNotFoundError: a file of a finished run is missing.
    """
    (folder,) = [file.parent for file in output.glob("*/*/run.yaml")]
    parts: dict[str, Any] = {
        f"model/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (folder / "model").iterdir()
        if file.name != CARD  # it tells how long attacks took
    }
    for name in ("scores.json", "attacks.json", "samples.json", "intervals.json", "uds.json"):
        if (folder / name).is_file():
            parts[name] = json.loads((folder / name).read_text())
    if not {"scores.json", "attacks.json"} <= parts.keys():
        raise FileNotFoundError(f"{folder} has no scores.json or attacks.json")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    parts["metrics.jsonl"] = [without_machine(json.loads(line)) for line in lines]
    parts["scores.json"] = without_machine(parts["scores.json"])
    parts["attacks.json"] = without_machine(parts["attacks.json"])
    return Outcome(parts)


def litter(output: Path) -> list[str]:
    """Returns the temporary files and folders that a run left under `output`."""
    return sorted({str(file.relative_to(output)) for pattern in LITTER for file in output.rglob(pattern)})


def without_machine(value: Any) -> Any:
    """Returns JSON without figures that depend on the machine (MACHINE), at every depth."""
    if isinstance(value, dict):
        return {key: without_machine(part) for key, part in value.items() if key not in MACHINE}
    return [without_machine(part) for part in value] if isinstance(value, list) else value


def _first_difference(one: Any, two: Any) -> str:
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted({*one, *two}, key=str):
            if one.get(key) != two.get(key):
                return f"{key}: {_first_difference(one.get(key), two.get(key))}"
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for index, (left, right) in enumerate(zip(one, two, strict=True)):
            if left != right:
                return f"[{index}] {_first_difference(left, right)}"
    return f"{str(one)[:80]} != {str(two)[:80]}"
