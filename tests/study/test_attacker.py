"""The attack tuned on each reported model: equal budgets, a bound of utility, and facts that chose nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from erulab.attacks.halves import forgotten_facts, validation_half
from erulab.config.compose import compose_config
from erulab.data.fictitious import FictitiousWorld
from erulab.errors import ConfigError
from erulab.options import Facts, RunConfig
from erulab.rundir import RunDir
from erulab.stages.attack_model import Gain
from erulab.study import spec, work
from erulab.study.__main__ import main
from erulab.study.attacker import attacker_objective, best_setting
from erulab.study.attacker_space import as_typed, attacker_space
from erulab.study.choose import Match
from erulab.study.matching import measure_run, neutral_rows
from erulab.study.run_models import open_run
from erulab.study.spec import Attacker, Study
from erulab.tuning.space import Range
from tests.pipeline.conftest import small
from tests.study.test_spec import written
from tests.study.test_study import STUDY

TRIALS, KEPT = 3, 0.8
ATTACKED = (
    STUDY.replace("[method=simnpo, method=gd]", "[method=simnpo]")
    .replace('"seed=0,1"', "seed=0")
    .replace("kept: 0.9", "match: weights\n  bound: 0.02")
    + f"""
attacker:
  attack: attack=relearn attack.relearn.repeats=2
  space: {{attack.relearn.lr: {{low: 1.0e-4, high: 1.0e-1, log: true}}, attack.relearn.steps: {{low: 1, high: 4}}}}
  trials: {TRIALS}
  kept: {KEPT}
"""
)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study: one arm of two trials, one reported run, three models attacked."""
    folder = tmp_path_factory.mktemp("attacked-study")
    assert main([str(written(folder, ATTACKED)), f"output={folder / 'o'}"]) == 0
    return folder


def attacker_searches(studied: Path) -> dict[str, list[FrozenTrial]]:
    """Returns the trials on each model, as any Optuna program reads them."""
    (folder,) = (studied / "o" / "studies").iterdir()
    storage = JournalStorage(JournalFileBackend(str(folder / "attacker" / "journal.log")))
    names = [study.study_name for study in optuna.get_all_study_summaries(storage)]
    return {name.partition("-")[0]: optuna.load_study(study_name=name, storage=storage).trials for name in names}


def the_arm(studied: Path) -> dict[str, Any]:
    (folder,) = (studied / "o" / "studies").iterdir()
    (arm,) = json.loads((folder / "study.json").read_text())["arms"]
    assert isinstance(arm, dict)
    return arm


def attack_rows(studied: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(RunDir(the_arm(studied)["folders"][0]).attacks_json.read_text())
    return rows


def test_each_model_has_as_many_trials_and_its_own_best_setting(studied: Path) -> None:
    found = attacker_searches(studied)
    assert set(found) == {"target", "unlearned", "oracle"}
    headline = next(row for row in attack_rows(studied) if row["attack"] == "tuned_relearn")
    for model, trials in found.items():
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * TRIALS
        levels = [
            -math.inf if trial.user_attrs["utility_kept"] < KEPT else trial.user_attrs["validation_level"]
            for trial in trials
        ]
        typed = trials[int(np.argmax(levels))].user_attrs["typed"]
        assert headline["chosen"][model] == [{one.split("=")[0].split(".")[-1]: one.split("=")[1] for one in typed}] * 2
    spent = [np.mean(trial.user_attrs["budget"]["steps"]) for trial in found["unlearned"]]
    assert headline["steps"] == pytest.approx(sum(spent)) and headline["setting"]["trials"] == TRIALS


def test_a_level_is_that_of_the_cached_scores_of_validation_facts(studied: Path) -> None:
    """Read a second time from the traces in the cache."""
    world = FictitiousWorld(run_config(studied).dataset).load(0)
    validation = validation_half(world, 0)
    key = attacked_keys(studied)["unlearned"]
    entries = [json.loads(file.read_text()) for file in (studied / "o").rglob("attacked/*/entry.json")]
    for trial in attacker_searches(studied)["unlearned"]:
        settings = dict(one.removeprefix("attack.relearn.").split("=") for one in trial.user_attrs["typed"])
        levels = []
        for entry in entries:
            made = entry["depends_on"]
            own = made["attack"] or {}
            same = own.get("lr") == [float(settings["lr"])] and own.get("steps") == int(settings["steps"])
            if same and made["model"] == key:
                (file,) = (studied / "o").rglob(f"attacked/{entry['key']}/trace.json")
                (attempt,) = json.loads(file.read_text())
                rows = [row for row in attempt["rows"] if (row["fact"] or row["id"]) in validation]
                levels.append(np.mean([row["figures"]["log_odds"] for row in rows if "log_odds" in row["figures"]]))
        assert len(levels) == 2
        assert trial.user_attrs["validation_level"] == pytest.approx(np.mean(levels))
    # The two repeats score all facts between them; those that chose are left out of what is reported.
    headline = next(row for row in attack_rows(studied) if row["attack"] == "tuned_relearn")
    assert headline["facts"] == len(forgotten_facts(world) - validation)


def run_config(studied: Path) -> RunConfig:
    return reported_job(studied).config


def reported_job(studied: Path) -> work.Job:
    study = spec.read_study(studied / "study.yaml")
    assert isinstance(study, Study)
    arm = the_arm(studied)
    typed = [arm["arm"], *study.common.split(), *study.report.common.split(), *arm["best"], "seed=0"]
    job = work.plan_run([*typed, f"output={studied / 'o'}"])
    assert str(job.rundir.path) == arm["folders"][0]
    return job


def attacked_keys(studied: Path) -> dict[str, str]:
    stages = json.loads(RunDir(the_arm(studied)["folders"][0]).stages_json.read_text())
    keys: dict[str, str] = stages["attack"]["models"]
    return keys


def test_other_attacks_stay_and_the_same_command_repeats_nothing(studied: Path) -> None:
    rows = attack_rows(studied)
    assert {row["attack"] for row in rows} == {"quantize", "tuned_relearn"}
    (folder,) = (studied / "o" / "studies").iterdir()
    assert r"knowledge left after tuned\_relearn" in (folder / "report.md").read_text()
    files = [*(studied / "o").rglob("trace.json"), *(studied / "o").rglob("attacks.json")]
    made = {file: file.stat().st_mtime_ns for file in files}
    assert main([str(studied / "study.yaml"), f"output={studied / 'o'}"]) == 0
    assert {file: file.stat().st_mtime_ns for file in made} == made
    assert {len(trials) for trials in attacker_searches(studied).values()} == {TRIALS}


def test_trials_and_reported_runs_are_matched_by_the_same_measure(studied: Path) -> None:
    arm = the_arm(studied)
    moved = [trial["runs"][0]["moved"] for trial in arm["trials"]]
    rates = [float(trial["overrides"][0].partition("=")[2]) for trial in arm["trials"]]
    # After two steps of AdamW the distance grows with the learning rate.
    assert sorted(moved) == [one for _, one in sorted(zip(rates, moved, strict=True))] and min(moved) > 0
    assert arm["moved"] == min(moved) <= 0.02 < max(moved)
    # The reported run is on the same world, and so the same model.
    assert arm["reported_moved"] == [arm["moved"]]
    (folder,) = (studied / "o" / "studies").iterdir()
    assert "relative weight distance" in (folder / "report.md").read_text()
    job = reported_job(studied)
    assert 0 < measure_run(job, Match.kl) < 1
    # On the half of the retained facts that chooses, where one is named; both halves are all.
    context = open_run(job)
    rows = {
        part: {row.id for row in neutral_rows(replace(context, config=with_facts(context.config, part)))}
        for part in Facts
    }
    assert rows[Facts.validation] | rows[Facts.reported] == rows[Facts.all]
    assert not rows[Facts.validation] & rows[Facts.reported] and all(rows.values())


def with_facts(config: RunConfig, part: Facts) -> RunConfig:
    return replace(config, evaluation=replace(config.evaluation, facts=part))


def test_settings_that_keep_too_little_are_worse_than_all_others() -> None:
    within, weak, broken = Gain(2.0, 0.8, 1.0), Gain(-30.0, 1.2, 1.0), Gain(9.0, 0.79, 1.0)
    undefined, useless = Gain(9.0, math.nan, 1.0), Gain(9.0, 0.0, 1.0)
    values = [attacker_objective(gain, 0.8) for gain in (within, weak, broken, useless, undefined)]
    assert values[0] == -2.0 and values[1] == 30.0
    assert values[:4] == sorted(values[:4]) and values[4] > values[2]
    # A model without utility has none to lose.
    assert attacker_objective(Gain(1.0, 0.0, 0.0), 0.8) == -1.0 and Gain(1.0, 0.0, 0.0).kept is None

    def trial(level: float, lacks: float, state: TrialState = TrialState.COMPLETE) -> Any:
        return SimpleNamespace(state=state, user_attrs={"validation_level": level, "utility_lacks": lacks})

    trials = [trial(1.0, 0.0), trial(5.0, 0.1), trial(3.0, 0.0), trial(3.0, 0.0), trial(7.0, 0.0, TrialState.FAIL)]
    assert best_setting(trials) is trials[2]
    assert best_setting([trials[1]]) is None


@pytest.fixture(scope="module")
def composed() -> Callable[..., RunConfig]:
    return lambda *overrides: compose_config(small(overrides))


def test_options_that_are_lists_are_typed_as_lists(composed: Callable[..., RunConfig]) -> None:
    config = composed("attack=relearn")
    space = attacker_space(Attacker(space={"attack.relearn.lr": {"factor": 10}}), config)
    assert space == {"attack.relearn.lr": Range(5e-5, 5e-3, log=True)}
    assert as_typed("attack.relearn.lr=0.001", config) == "attack.relearn.lr=[0.001]"
    assert as_typed("attack.relearn.samples=8", config) == "attack.relearn.samples=[8]"
    assert as_typed("attack.relearn.samples=null", config) == "attack.relearn.samples=null"
    assert as_typed("attack.relearn.epochs=3", config) == "attack.relearn.epochs=3"


@pytest.mark.parametrize(
    ("attack", "key", "said"),
    [
        ("attack=[relearn,quantize]", "attack.relearn.lr", "must name one attack"),
        ("attack=quantize", "attack.quantize.bits", "not tuned for each model"),
        ("attack=relearn", "attack.relearn.epoch", "did you mean attack.relearn.epochs"),
        ("attack=relearn", "trainer.lr", "no option of attack=relearn"),
    ],
)
def test_errors_of_an_attacker_are_one_line(
    composed: Callable[..., RunConfig], attack: str, key: str, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        attacker_space(Attacker(space={key: {"low": 1.0, "high": 2.0}}), composed(attack))
    assert said in str(error.value) and "\n" not in str(error.value)
