"""Whole runs on a small world, composed by Hydra and run by the worker, in the process of the tests."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from erulab import worker
from erulab.command import STOP_SIGNALS
from erulab.config.compose import compose_config, save_config
from erulab.launching.job import plan_job
from erulab.rundir import RunDir
from tests.conftest import MadeOnce

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
FIRST = ("attack=[relearn,quantize]",)


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


@pytest.fixture(scope="session")
def copy_first(made_once: MadeOnce) -> Callable[[Path], Finished]:
    """Copies the output folder of the run that others are compared with, cache included; all workers make it once."""

    def make(folder: Path) -> None:
        assert finished([*small(FIRST), f"output={folder}"]).code == 0

    def copy(output: Path) -> Finished:
        shutil.copytree(made_once("first-run", make), output)
        (rundir,) = (output / "fictitious").iterdir()
        return Finished(RunDir(rundir), 0)

    return copy


@pytest.fixture(scope="module")
def first(copy_first: Callable[[Path], Finished], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The run that the others are compared with, in an output folder of the test file's own."""
    return copy_first(tmp_path_factory.mktemp("pipeline") / "outputs")


def run_beside(first: Finished) -> Runner:
    """Returns `python -m erulab.run OVERRIDES` for the output folder of this run, in the process of the tests."""
    output = first.rundir.path.parents[1]

    def finish(*overrides: str, folder: Path | None = None) -> Finished:
        return finished([*small(overrides), f"output={folder or output}"])

    return finish


@pytest.fixture(scope="module")
def run(first: Finished) -> Runner:
    """The command, in the output folder of the test file."""
    return run_beside(first)


def finished(overrides: list[str]) -> Finished:
    """`python -m erulab.run OVERRIDES` to its end, in this process.

    Raises:
        ErulabError: what the command refuses before a worker starts.
    """
    job = plan_job(compose_config(overrides))
    job.rundir.make()
    save_config(job.config, job.rundir.run_yaml)
    job.rundir.exit_json.unlink(missing_ok=True)
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        code = worker.main([str(job.rundir.path)])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Finished(job.rundir, code)
