"""Whole runs on a small world, composed by Hydra and run by the worker, in the process of the tests."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from erulab import worker
from erulab.config.compose import compose_config, save_config
from erulab.launching.job import plan_job
from erulab.rundir import RunDir
from erulab.training.stopping import SIGNALS

SMALL = (
    "dataset.forget_authors=4",
    "dataset.retain_authors=3",
    "dataset.unrehearsed_authors=1",
    "dataset.unseen_authors=1",
    "dataset.general_facts=2",
    "model.layers=3",
    "model.width=32",
    "model.heads=2",
    "target.epochs=12",
    "target.global_batch=32",
    "target.lr=1e-2",
    "trainer.steps=4",
    "trainer.global_batch=8",
    "trainer.lr=1e-3",
    "evaluation.max_new_tokens=16",
    "attack.relearn.epochs=1",
    "tracker=none",
    "engine=local",
)


@dataclass(frozen=True)
class Finished:
    """A run that has ended: its folder and exit code."""

    rundir: RunDir
    code: int

    def read(self, name: str) -> Any:
        return json.loads((self.rundir.path / name).read_text())

    @property
    def from_cache(self) -> dict[str, bool]:
        return {stage: entry["from_cache"] for stage, entry in self.read("stages.json").items() if "key" in entry}


Runner = Callable[..., Finished]


def small(overrides: tuple[str, ...]) -> list[str]:
    """Returns SMALL and these overrides, without the options of an attack, model or data set that they replace."""
    left_out: tuple[str, ...] = ()
    if any(o.startswith("attack=") and "relearn" not in o for o in overrides):
        left_out += ("attack.relearn",)
    if any(o.startswith("model=") for o in overrides):
        left_out += ("model.",)
    if any(o.startswith("dataset=") for o in overrides):
        left_out += ("dataset.",)
    return [o for o in SMALL if not o.startswith(left_out)] + list(overrides)


@pytest.fixture(scope="package")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One output folder, so that the tests share one cache as a user's runs do."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="package")
def run(output: Path) -> Runner:
    """`python -m erulab.run OVERRIDES`, without the second process."""

    def finish(*overrides: str, folder: Path | None = None) -> Finished:
        return finished([*small(overrides), f"output={folder or output}"])

    return finish


def finished(overrides: list[str]) -> Finished:
    """`python -m erulab.run OVERRIDES` to its end, in this process.

    Raises:
        ErulabError: what the command refuses before a worker starts.
    """
    job = plan_job(compose_config(overrides))
    job.rundir.make()
    save_config(job.config, job.rundir.run_yaml)
    job.rundir.exit_json.unlink(missing_ok=True)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        code = worker.main([str(job.rundir.path)])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Finished(job.rundir, code)


@pytest.fixture(scope="package")
def first(run: Runner) -> Finished:
    """The run the others are compared with."""
    finished = run("attack=[relearn,quantize]")
    assert finished.code == 0
    return finished
