"""TensorBoard read back from its event files; the others by their own readers where they are installed."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from erulab.config.compose import compose_config
from erulab.errors import ConfigError, EnvironmentFault
from erulab.launching.job import plan_job
from erulab.stages.tracking import Tracker
from erulab.tracking import checks
from erulab.tracking.accelerate_service import AccelerateService
from tests.stages.test_tracking import Rank, lines
from tests.tracking.conftest import Finished

CANARY = "hf_canarycanarycanarycanary"


def tracked(*made: Any) -> Tracker:
    return Tracker(*made, Rank())  # type: ignore[arg-type]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_gets_curves_and_figures(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    # As under torchrun: accelerate must not join a process group, nor set threads.
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_TOKEN", CANARY)
    rundir, settings = finished("method=npo", "tracker=tensorboard")
    settings.model.system = f"used {CANARY}"
    log = tracked(rundir, settings)
    log.log_stage("target", 0, {"loss": 4.5})
    for step, loss in enumerate((2.5, float("nan"), 2.0)):
        log.log(step, {"loss": loss})
    log.summary({"unlearned": {"forget/choice": 0.125, "note": "words", "knowledge_left": None}})
    assert log.finish() is None
    found = scalars(rundir.tensorboard)
    assert found["loss"] == [(0, 2.5), (2, 2.0)] and found["target/loss"] == [(0, 4.5)]
    assert found["unlearned/forget/choice"] == [(2, 0.125)]
    assert found["verdict/knowledge_left"] == [(2, pytest.approx(0.02))]
    assert found["attack/worst/knowledge_left"] == [(2, pytest.approx(0.12))]
    stored = b"".join(file.read_bytes() for file in rundir.tensorboard.rglob("*") if file.is_file())
    assert b"not robust: after the strongest attack" in stored and CANARY.encode() not in stored
    assert b"Bela Ronu" not in stored
    assert os.environ["LOCAL_RANK"] == "0"
    # The same command again has nothing new: no second event file.
    files = sorted(rundir.tensorboard.rglob("*"))
    again = tracked(rundir, settings)
    again.summary({"unlearned": {"forget/choice": 0.125, "note": "words", "knowledge_left": None}})
    again.finish()
    assert sorted(rundir.tensorboard.rglob("*")) == files


def test_a_tracker_that_cannot_write_gets_one_warning(finished: Finished, caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 25."""
    rundir, settings = finished("tracker=tensorboard")
    rundir.tensorboard.write_text("no folder")
    log = tracked(rundir, settings)
    with caplog.at_level(logging.WARNING, logger="erulab"):
        for step in range(3):
            log.log(step, {"loss": 1.0})
        log.finish()
    assert len(lines(rundir)) == 3
    assert [record.levelname for record in caplog.records if record.name == "erulab.tracking.mirror"] == ["WARNING"]


def no_space(*_: Any) -> None:
    raise OSError("no space")


def test_results_that_were_not_sent_are_sent_by_the_same_command(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command whose run is finished starts nothing, unless its tracker lacks the results."""
    rundir, settings = finished("tracker=tensorboard")
    scores = rundir.read_json(rundir.scores_json)
    with monkeypatch.context() as broken:
        broken.setattr(AccelerateService, "summarise", no_space)
        log = tracked(rundir, settings)
        log.summary(scores)
        log.finish()
    assert checks.is_awaited(rundir, settings)
    log = tracked(rundir, settings)
    log.summary(scores)
    log.finish()
    assert not checks.is_awaited(rundir, settings)


def test_mlflow_finds_its_run_again(finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)  # MLflow puts artifacts into the current folder
    rundir, settings = finished("method=npo", "tracker=mlflow", "tracker.project=lab")
    for step in range(2):
        log = tracked(rundir, settings)
        log.log(step, {"loss": 2.0 - step})
        log.finish()
    known = json.loads(rundir.tracker_json.read_text())["mlflow"]["id"]
    (run,) = mlflow.search_runs(experiment_names=["lab"], output_format="list")
    assert run.info.run_id == known and run.data.metrics["loss"] == 1.0
    assert run.data.metrics["verdict/knowledge_left"] == 0.02 and run.data.params["method.name"] == "npo"
    assert "not robust" in run.data.tags["mlflow.note.content"]


def test_a_tracker_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FAULTS 24."""
    monkeypatch.setattr(checks, "find_spec", lambda package: None if package == "trackio" else package)
    config = compose_config(["tracker=trackio", f"output={tmp_path}"])
    with pytest.raises(EnvironmentFault, match="tracker=trackio: trackio is not installed; type pip install trackio"):
        plan_job(config)


def test_a_model_is_sent_to_wandb_only() -> None:
    with pytest.raises(ConfigError, match="tracker=tensorboard; type tracker=wandb"):
        compose_config(["artifacts.model=wandb", "tracker=tensorboard"])
