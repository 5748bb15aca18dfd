"""The expected time of a run's stages, from run folders with times that the test chose."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from erulab.options import Stage
from erulab.reporting.expected import expected_seconds

CONFIG: dict[str, Any] = {
    "model": {"name": "tiny"},
    "dataset": {"name": "fictitious", "world": 0},
    "method": {"name": "npo", "beta": 0.1},
    "reward": {"name": "reference"},
    "adversary": {"name": "none"},
    "trainer": {"steps": 90, "lr": 5e-4, "precision": "auto"},
    "target": {"epochs": 20},
    "engine": {"name": "local"},
    "evaluation": {"uds": True},
    "attack": {"quantize": {"bits": [4]}},
    "benchmark": {},
    "stages": ["target", "unlearn", "evaluate", "attack"],
    "seed": 0,
}
MACHINE = {"cpu": "x", "cores": 2, "gpus": []}
TOOK = {"target": 50.0, "unlearn": 20.0, "evaluate": 10.0, "attack": 40.0}


def write_run(folder: Path, changes: dict[str, Any], *, age: float = 0, machine: Any = MACHINE, **took: float) -> Path:
    folder.mkdir()
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        part, _, name = key.rpartition(".")
        (config[part] if part else config)[name] = value
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    (folder / "env.json").write_text(json.dumps(machine))
    if took:
        entries = {name: {"from_cache": False, "this_run": {"seconds": seconds}} for name, seconds in took.items()}
        (folder / "stages.json").write_text(json.dumps(entries))
        os.utime(folder / "stages.json", (1e9 - age, 1e9 - age))
    return folder


def test_another_seed_takes_as_long_and_its_target_is_in_the_cache(tmp_path: Path) -> None:
    write_run(tmp_path / "before", {}, **TOOK)
    own = write_run(tmp_path / "own", {"seed": 1, "method.beta": 0.2, "trainer.lr": 1e-4})
    assert expected_seconds(own) == {Stage(name): s for name, s in {**TOOK, "target": 0.0}.items()}
    again = write_run(tmp_path / "again", {"rerun": True})
    assert expected_seconds(again)[Stage.target] == 50.0


@pytest.mark.parametrize(
    ("key", "value", "missing"),
    [
        ("method.name", "ga", {Stage.unlearn}),
        ("trainer.steps", 180, {Stage.unlearn}),
        ("target.epochs", 40, {Stage.target}),
        ("attack", {}, {Stage.attack}),
        ("dataset.world", 1, set(map(Stage, TOOK))),
    ],
)
def test_what_changes_the_time_of_a_stage_leaves_it_unknown(
    tmp_path: Path, key: str, value: Any, missing: set[Stage]
) -> None:
    write_run(tmp_path / "before", {}, **TOOK)
    own = write_run(tmp_path / "own", {key: value})
    assert set(map(Stage, TOOK)) - expected_seconds(own).keys() == missing


def test_the_newest_run_of_this_machine_counts_and_damaged_folders_do_not(tmp_path: Path) -> None:
    write_run(tmp_path / "old", {}, age=500, unlearn=20.0, evaluate=10.0)
    write_run(tmp_path / "new", {}, age=100, unlearn=30.0)
    write_run(tmp_path / "elsewhere", {}, machine={**MACHINE, "cores": 64}, unlearn=1.0)
    (write_run(tmp_path / "torn", {}, unlearn=2.0) / "run.yaml").write_text("a: [")
    (write_run(tmp_path / "cut", {}, unlearn=3.0) / "stages.json").write_text('{"unlearn": {')
    own = write_run(tmp_path / "own", {})
    assert expected_seconds(own) == {Stage.unlearn: 30.0, Stage.evaluate: 10.0}
    assert expected_seconds(tmp_path / "nothing") == {}
