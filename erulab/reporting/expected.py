"""Tells how long the stages of a run will take, by the newest earlier run that was like it in what a stage costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from erulab.options import Stage

NEWEST = 20  # earlier runs that are looked at
# What the time of a stage depends on, as dotted keys of run.yaml; weights do not, and so seeds and rates do not.
COMMON = ("model", "dataset", "engine")
LEARNED = (*COMMON, "target", "trainer.precision")
SAME_FOR: Mapping[Stage, tuple[str, ...]] = {
    Stage.target: LEARNED,
    Stage.oracle: LEARNED,
    Stage.unlearn: (
        *COMMON,
        *("method.name", "reward.name", "adversary"),
        *(f"trainer.{name}" for name in ("epochs", "steps", "global_batch", "retain_ratio", "eval_every", "precision")),
    ),
    Stage.evaluate: (*COMMON, "benchmark", "evaluation", "stages"),
    Stage.attack: (*COMMON, "attack", "evaluation"),
}
LEARNS = (Stage.target, Stage.oracle)
MACHINE = ("cpu", "cores", "gpus")  # of env.json


def expected_seconds(folder: Path) -> dict[Stage, float]:
    """Returns the seconds that each stage of a run is expected to take; stages that no earlier run tells are missing.

    Target and oracle that an earlier run learned are taken from the cache, in no time.

    Args:
        folder: the run folder, which holds run.yaml and env.json; earlier runs lie beside it.
    """
    own = _read_run(folder)
    if own is None:
        return {}
    found: dict[Stage, float] = {}
    others = [file for file in folder.parent.glob("*/stages.json") if file.parent != folder]
    for file in sorted(others, key=_modified, reverse=True)[:NEWEST]:
        other = _read_run(file.parent)
        if other is None or any(other[1].get(key) != own[1].get(key) for key in MACHINE):
            continue
        for stage, keys in SAME_FOR.items():
            if stage not in found and all(_value(other[0], key) == _value(own[0], key) for key in keys):
                seconds = _seconds(file, stage)
                if seconds is not None:
                    found[stage] = seconds
    learned_again = bool(own[0].get("rerun"))
    return {stage: 0.0 if stage in LEARNS and not learned_again else seconds for stage, seconds in found.items()}


def _read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Returns the contents of a run's run.yaml and env.json; None if they cannot be read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        config = yaml.load((folder / "run.yaml").read_text(encoding="utf-8"), loader)
        machine = json.loads((folder / "env.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    return (config, machine) if isinstance(config, dict) and isinstance(machine, dict) else None


def _seconds(file: Path, stage: Stage) -> float | None:
    """Returns how long a run worked on a stage; None if it did not, or found everything in the cache."""
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))[stage.value]
        return None if entry["from_cache"] else float(entry["this_run"]["seconds"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
