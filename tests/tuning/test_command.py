"""`erulab.run -m tune=METHOD` as a user types it, with a stand-in worker whose optimum is known."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from erulab.config.compose import CONF, compose_config, config_to_dict, load_config
from erulab.launching.job import Job
from erulab.options import Facts
from erulab.registry import OWN_CONF
from erulab.reporting.load import run_folders
from erulab.rundir import InUse, RunDir
from erulab.tuning import run_search
from erulab.tuning.experiment import LEFT_OUT_OF_TRIALS, NOT_WRITTEN
from erulab.tuning.run_search import _value_of
from erulab.tuning.space import read_space
from tests.commands import Answer

# |K| is least at lr = 1e-3; utility falls below 0.9 above lr = 3e-3; over 0.9 decades beyond it the loss is no number.
BODY = """
import math, yaml
config = yaml.safe_load((folder / "run.yaml").read_text())
with open("ran", "a") as ran:
    ran.write("x")
if os.path.exists("full"):
    end(4, "no space left on the disk")
decades = math.log10(config["trainer"]["lr"] / 1e-3)
if decades > 0.9:
    end(5, "the loss is NaN")
target = {"retain/probability": 0.8}
left = {"knowledge_left": abs(decades), "utility_kept": 1.0 if decades < 0.5 else 0.5}
(folder / "scores.json").write_text(json.dumps({"target": target, "unlearned": {**target, **left}, "oracle": target}))
end(0)
"""
TYPED = ("-m", "tune=npo", "method.beta=0.2", "method.retain_weight=1", "dataset.world=3", "tracker=none")


@pytest.fixture
def ran(here: Path, worker: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many workers have started so far."""
    monkeypatch.setattr("erulab.launching.job.WORKER", worker(BODY))
    return lambda: len((here / "ran").read_text()) if (here / "ran").is_file() else 0


def result(here: Path) -> dict[str, Any]:
    (file,) = (here / "outputs" / "tuning").glob("*/search.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_a_search_writes_settings_that_can_be_typed(
    command: Callable[..., Answer], ran: Callable[[], int], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 18: a full disk ends the search with its code, and the same command goes on; a NaN is a failed trial."""
    (here / "full").touch()
    stopped = command(*TYPED, "hydra.sweeper.trials=6")
    assert stopped.code == 4 and "no space left" in stopped.err and stopped.err.count("\n") <= 2
    (here / "full").unlink()
    answer = command(*TYPED, "hydra.sweeper.trials=6")
    assert answer.code == 0, answer.err
    trials = result(here)["trials"]
    assert ran() == 1 + 6 and len(trials) == 6
    assert answer.out.count("dataset    fictitious") == 1  # what all trials have in common is said once
    assert not (here / "outputs" / "sweeps").exists()
    rates = [float(trial["typed"][0].removeprefix("trainer.lr=")) for trial in trials]
    for trial, rate in zip(trials, rates, strict=True):
        assert trial["state"] == ("FAIL" if rate > 1e-3 * 10**0.9 else "COMPLETE")
        assert load_config(here / trial["folder"] / "run.yaml").trainer.lr == rate
    best = result(here)["best"]
    assert rates[best] == min(rates, key=lambda rate: trials[rates.index(rate)]["values"] or [99.0])
    # The same command says the same without a run, and a larger number goes on.
    assert command(*TYPED, "hydra.sweeper.trials=6").code == 0 and ran() == 7
    more = command(*TYPED, "hydra.sweeper.trials=7")
    assert more.code == 0 and ran() == 8 and result(here)["trials"][:6] == trials
    # The line at the end composes to the best trial's settings, on the other facts.
    typed = shlex.split(more.out.strip().splitlines()[-1])
    assert typed[:3] == ["python", "-m", "erulab.run"] and typed[3] == "--config-dir"
    monkeypatch.setenv(OWN_CONF, str(Path(typed[4]).absolute()))
    reported = compose_config(typed[5:])
    best_run = load_config(here / result(here)["trials"][result(here)["best"]]["folder"] / "run.yaml")
    assert best_run.evaluation.facts is Facts.validation and reported.evaluation.facts is Facts.reported
    now, before = config_to_dict(reported), config_to_dict(best_run)
    for plain in (now, before):
        for key in ("facts", *LEFT_OUT_OF_TRIALS):
            del plain["evaluation"][key]
    assert {part for part in now if now[part] != before[part]} <= set(NOT_WRITTEN)
    assert reported.attack and reported.method.beta == 0.2 and reported.dataset.world == 3


def test_a_search_stands_for_the_runs_of_its_trials(tmp_path: Path) -> None:
    """Trials without figures have no folder, and two with the same settings share one."""
    search, runs = RunDir(tmp_path / "tuning" / "key"), [tmp_path / "fictitious" / name for name in "ab"]
    for run in runs:
        RunDir(run).write_text(RunDir(run).run_yaml, "{}")
    trials = [{"folder": str(runs[1])}, {"state": "FAIL"}, {"folder": str(runs[0])}, {"folder": str(runs[1])}]
    search.write_json(search.path / "search.json", {"trials": trials})
    assert run_folders(search.path) == [runs[1], runs[0]]


def test_a_worker_that_outlived_its_command_is_waited_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 21: its run folder is in use for a while, which is no reason to end the search."""
    monkeypatch.setattr(run_search, "WAIT", 0.0)
    held = RunDir(here / "held")
    held.make()
    around = held.locked()
    around.__enter__()
    codes: list[int] = []

    class Launcher:
        def shared_workers(self, trackers: Any) -> contextlib.AbstractContextManager[None]:
            return contextlib.nullcontext()

        def slots(self) -> int:
            return 1

        def run_trials(self, overrides: Any, titles: Any, folder: str) -> list[tuple[int | None, Path]]:
            if len(codes) == 2:
                around.__exit__(None, None, None)
            codes.append(InUse.code if held.holder() is not None else 0)
            if codes[-1] == 0:
                scores = {"knowledge_left": 0.5, "utility_kept": 1.0}
                held.write_json(held.scores_json, {"target": {}, "oracle": {}, "unlearned": scores})
            return [(codes[-1], held.path)]

    space = {"trainer.lr": {"factor": 10}}
    assert run_search.run_search({"space": space, "trials": 1}, ["tune=ga"], compose_config, Launcher()) == 0
    assert codes == [4, 4, 0]


def test_a_dry_run_starts_no_trial(
    command: Callable[..., Answer], ran: Callable[[], int], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erulab.launching.dry_run._asked", [])  # the flag is remembered for the whole process
    shown: list[tuple[Job, str]] = []
    monkeypatch.setattr(
        run_search, "show_dry_run", lambda jobs, titles: shown.extend(zip(jobs, titles, strict=True)) or 0
    )
    answer = command("--dry-run", *TYPED)
    assert answer.code == 0, answer.err
    assert ran() == 0 and not (here / "outputs").exists()
    ((job, title),) = shown
    assert "20 trials of trainer.lr" in title
    assert job.config.method.beta == 0.2 and job.config.evaluation.facts is Facts.validation


def test_trials_are_no_single_wandb_run(
    command: Callable[..., Answer], ran: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "one")
    answer = command("-m", "tune=npo")
    assert answer.code == 2 and "unset WANDB_RUN_ID" in answer.err and ran() == 0


def test_two_goals_show_a_front(command: Callable[..., Answer], ran: Callable[[], int], here: Path) -> None:
    answer = command(*TYPED, "hydra.sweeper.goal=pareto", "hydra.sweeper.trials=4", "hydra.sweeper.sampler=qmc")
    assert answer.code == 0, answer.err
    assert ", front" in answer.out and "objective" not in answer.out
    assert all(len(trial["values"]) == 2 for trial in result(here)["trials"] if trial["values"])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["tune=npo", "trainer.lr=interval(1,0.1)"], ["trainer.lr must have low < high"]),
        (["tune=ga", "trainer.lr=1e-4"], ["nothing is searched", "interval(LOW,HIGH)"]),
        (["tune=npo", "evaluation.facts=all"], ["evaluation.facts=all", "type evaluation.facts=validation"]),
        (["tune=npo", "stages=[target,unlearn,evaluate]"], ["lacks oracle", "type stages="]),
        (["tune=npo", "hydra.sweeper.trials=0"], ["hydra.sweeper.trials must be > 0, got 0"]),
        (["tune=npo", "hydra.sweeper.floor=2"], ["hydra.sweeper.floor must be between 0 and 1"]),
        (["tune=npo", "method.nothing=1,2"], ["method.nothing"]),
        (["tune=ga", "seed=0,1"], ["seed is not searched", "type one value"]),
        (["tune=ga", "dataset.world=1,2"], ["dataset.world is not searched"]),
        (["tune=nop"], ["did you mean npo"]),
        (["hydra/sweeper=optuna", "method=npo"], ["exit codes", "type -m tune=METHOD"]),
    ],
)
def test_a_mistake_is_one_line_before_a_model_loads(
    command: Callable[..., Answer], ran: Callable[[], int], typed: list[str], said: list[str]
) -> None:
    answer = command("-m", *typed)
    assert answer.code == 2 and all(part in answer.err for part in said), answer.err
    assert answer.err.count("\n") == 1 and ran() == 0


@pytest.mark.parametrize("name", sorted(file.stem for file in (CONF / "tune").glob("*.yaml") if file.stem != "base"))
def test_every_preset_searches_keys_that_its_method_has(name: str) -> None:
    composed = compose_config([f"tune={name}"])
    assert composed.method.name == name and composed.evaluation.facts is Facts.validation and not composed.attack
    shown = yaml.safe_load((CONF / "tune" / f"{name}.yaml").read_text())["hydra"]["sweeper"]["space"]
    values = {**config_to_dict(composed), "adversary": composed.adversary.name}
    space = read_space(shown, lambda key: _value_of(values, key), "space")
    for key in space:
        _value_of(values, key)
