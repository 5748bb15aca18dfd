"""The tuning of an arm: equal budgets, round by round, and the same records whichever process finishes a round."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

from erulab.study import arm_search, spec, work
from erulab.tuning.options import SamplerName
from erulab.tuning.search import Search

STUDY = """
arms: ["method=npo", "method=gd"]
tuning:
  space: {trainer.lr: [1.0e-5, 1.0e-1]}
  rounds: [{trials: 8, runs: dataset.world=1}, {trials: 3, runs: "dataset.world=2,3"}]
  utility: retain/choice
report: {runs: dataset.world=4}
"""


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The overrides of every job that ran; K of a job is log10(lr / 1e-3), and no number at the highest rates."""
    jobs: list[list[str]] = []

    def run_jobs(wanted: list[Any]) -> list[Any]:
        jobs.extend(job.overrides for job in wanted)
        return wanted

    def scores(job: Any) -> dict[str, dict[str, float]] | None:
        rate = float(next(o for o in job.overrides if o.startswith("trainer.lr=")).partition("=")[2])
        whole = {"retain/choice": 1.0}
        left = {**whole, "knowledge_left": math.log10(rate / 1e-3)}
        return None if rate > 0.05 else {"target": whole, "unlearned": left, "oracle": whole}

    def plan(overrides: list[str], part: str = "") -> Any:
        return SimpleNamespace(overrides=overrides, rundir=SimpleNamespace(path="a-run"))

    monkeypatch.setattr(work, "plan_run", plan)
    monkeypatch.setattr(work, "run_jobs", run_jobs)
    monkeypatch.setattr(work, "read_scores", scores)
    return jobs


def test_arms_have_equal_budgets_and_the_same_points(tmp_path: Path, ran: list[list[str]]) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    study = spec.read_study(tmp_path / "study.yaml")
    assert isinstance(study, spec.Study)
    arms = spec.list_arms(study)
    tuned = [arm_search.tune_arm(study, arm, [], tmp_path / "tuning") for arm in arms]
    jobs = {arm[0]: [job for job in ran if arm[0] in job] for arm in arms}
    assert [len(own) for own in jobs.values()] == [8 + 3 * 2] * 2
    assert tuned[0]["trials"] == tuned[1]["trials"] and tuned[0]["best"] == tuned[1]["best"]
    rates = [float(trial["overrides"][0].removeprefix("trainer.lr=")) for trial in tuned[0]["trials"]]
    nearest = sorted(rates, key=lambda rate: abs(rate / 1e-3 - 1) if rate > 1e-3 else abs(1e-3 / rate - 1))
    assert tuned[0]["best"] == [f"trainer.lr={nearest[0]:.6g}"]
    # Another process, and the same one again, records nothing twice.
    assert arm_search.tune_arm(study, arms[0], [], tmp_path / "tuning") == tuned[0]
    space = spec.search_space(study.tuning, arms[0])
    search = Search(tmp_path / "tuning", arm_search.search_name(arms[0]), space, SamplerName.qmc, 0)
    states = [trial.state for trial in search.trials]
    assert states.count(TrialState.PRUNED) == 5 and states.count(TrialState.COMPLETE) == 3
    gone_on = {i for i, state in enumerate(states) if state is TrialState.COMPLETE}
    assert {rates[i] for i in gone_on} == set(nearest[:3])
    for i, trial in enumerate(search.trials):
        assert len(trial.intermediate_values) == (2 if i in gone_on else 1)
