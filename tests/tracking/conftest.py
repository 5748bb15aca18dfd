"""Run folders with results, and an environment without wandb's variables."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from erulab.config.compose import compose_config, save_config
from erulab.options import RunConfig
from erulab.rundir import RunDir
from tests.reporting.conftest import ATTACKS, ENV, SAMPLES, SCORES

VARIABLES = (
    *("API_KEY", "MODE", "BASE_URL", "PROJECT", "ENTITY", "RUN_GROUP", "NAME", "NOTES", "TAGS", "JOB_TYPE", "RUN_ID"),
    *("SWEEP_ID", "SWEEP_PARAM_PATH"),
)
PAGE = "<p>a page with Bela Ronu in it</p>"

Finished = Callable[..., tuple[RunDir, RunConfig]]


def clear_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Takes wandb's variables away, and keeps what wandb writes out of the user's home."""
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(folder / "no-netrc"))
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(folder / f"wandb-{name}"))


def finished_run(folder: Path, *overrides: str, collapsed: bool = False) -> tuple[RunDir, RunConfig]:
    """Makes the folder of a run that was scored, attacked and reported."""
    config = compose_config(overrides)
    rundir = RunDir(folder / "fictitious" / f"{config.method.name}-0123456789")
    rundir.make()
    save_config(config, rundir.run_yaml)
    scores = copy.deepcopy(SCORES)
    if collapsed:
        scores["unlearned"] |= {"retain_unrehearsed/exact_match": 0.2}
    rundir.write_json(rundir.scores_json, scores)
    rundir.write_json(rundir.attacks_json, ATTACKS)
    rundir.write_json(rundir.samples_json, SAMPLES)
    rundir.write_json(rundir.env_json, ENV)
    done = {stage.value: {"key": "e", "seconds": 1.0, "done": True} for stage in config.stages}
    rundir.write_json(rundir.stages_json, done)
    rundir.write_text(rundir.report_html, PAGE)
    return rundir, config


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear_environment(monkeypatch, tmp_path)


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    """`finished("method=npo")` makes the folder of such a run."""
    return functools.partial(finished_run, tmp_path)
