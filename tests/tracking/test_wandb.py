"""wandb, read back from what it writes offline."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wandb.sdk.data_types._private import MEDIA_TMP

from erulab.errors import ConfigError
from erulab.options import RunConfig, SavedModel
from erulab.rundir import RunDir
from erulab.stages.tracking import Tracker
from erulab.tracking.checks import check_tracked_sweep, is_awaited
from tests.stages.test_tracking import KEY, Rank, lines
from tests.tracking.conftest import Finished, clear_environment, finished_run
from tests.tracking.offline_record import Segment, read_segment, segments


def tracked(rundir: RunDir, settings: RunConfig) -> Tracker:
    return Tracker(rundir, settings, Rank())  # type: ignore[arg-type]


def only_segment(rundir: RunDir) -> Segment:
    (folder,) = segments(rundir.path)
    return read_segment(folder)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Segment]:
    """A collapsed run with two steps of unlearning and one of learning the target."""
    folder = tmp_path_factory.mktemp("sent")
    typed = ("method=npo", "trainer.lr=3e-4", "seed=1", "tracker.tags=[thesis]")
    with pytest.MonkeyPatch.context() as monkeypatch:
        clear_environment(monkeypatch, folder)
        rundir, settings = finished_run(folder, *typed, collapsed=True)
        log = tracked(rundir, settings)
        log.log_stage("target", 0, {"loss": 4.5})
        log.log(0, {"loss": 2.5, "grad_norm": 1.0})
        log.log(1, {"loss": 2.75, "grad_norm": 3.0})
        log.summary(rundir.read_json(rundir.scores_json))
        log.finish()
    return rundir, only_segment(rundir)


def test_the_summary_holds_verdict_and_attacks(sent: tuple[RunDir, Segment]) -> None:
    """The figures are those that tests/reporting/conftest.py writes into scores.json and attacks.json."""
    summary = sent[1].summary
    ends = [summary[f"verdict/{name}"] for name in ("knowledge_left", "low", "high", "outcome")]
    assert ends == [0.02, -0.03, 0.07, "forgotten"]
    assert summary["verdict/utility_kept"] == 0.2 and summary["verdict/collapsed"] is True
    assert summary["attack/relearn/knowledge_left"] == summary["attack/worst/knowledge_left"] == 0.12
    assert summary["attack/quantize/knowledge_left"] == 0.02 and summary["attack/worst/name"] == "relearn"
    assert (summary["attack/worst/low"], summary["attack/worst/outcome"]) == (pytest.approx(0.05), "not robust")
    assert summary["unlearned/forget/choice"] == 0.08  # and all of scores.json beside it


def test_curves_have_an_axis_per_stage_and_keep_their_extremes(sent: tuple[RunDir, Segment]) -> None:
    found = sent[1]
    assert found.metrics["*"].step_metric == "step" and found.metrics["target/*"].step_metric == "target/step"
    assert found.summary["loss"] == {"min": 2.5, "last": 2.75}
    assert found.summary["grad_norm"] == {"max": 3.0, "last": 3.0}
    steps = [(row["step"], row["loss"]) for row in found.history if "loss" in row]
    assert steps == [(0, 2.5), (1, 2.75)]
    assert [row["target/loss"] for row in found.history if "target/loss" in row] == [4.5]


def test_a_run_has_a_name_tags_a_kind_and_the_verdict_in_words(sent: tuple[RunDir, Segment]) -> None:
    run = sent[1].run
    assert run.display_name == "npo_lr3e-4_s1-0123456789"
    assert set(run.tags) == {"npo", "fictitious", "reference", "thesis"}
    assert (run.project, run.entity, run.run_group, run.job_type) == ("erulab", "", "", "unlearn")
    assert run.notes.startswith("COLLAPSED: the model lost more than half of its utility")
    assert "not robust: after the strongest attack" in run.notes
    (alert,) = sent[1].alerts
    assert alert.title == "COLLAPSED: npo_lr3e-4_s1-0123456789" and alert.level == "WARN"
    assert sent[1].exit_code == 0


def test_config_has_the_plugins_by_name_the_commit_and_the_versions(sent: tuple[RunDir, Segment]) -> None:
    config = sent[1].config
    assert config["method"]["name"] == "npo" and config["trainer"]["lr"] == 3e-4
    assert config["choice"]["method"] == "npo" and config["choice"]["dataset"] == "fictitious"
    assert config["env"]["git"] == "a" * 40 and config["env"]["torch"] == "2.13.0"


def test_the_report_is_sent_without_generated_texts(sent: tuple[RunDir, Segment]) -> None:
    rundir, found = sent
    report = found.artifacts["report"]
    assert set(report) == {"report.html", "scores.json", "attacks.json"}
    page = report["report.html"].read_text()
    assert "knowledge left" in page.lower() and "Bela Ronu" not in page
    assert all(file.is_relative_to(rundir.path.resolve()) for file in report.values())  # no copy in the user's home
    assert "model" not in found.artifacts and "samples" not in found.summary


def test_a_job_sends_its_tables_after_another_copy_of_the_process_has_ended(
    finished: Finished, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of a forked job removes the folder that wandb made when it was imported (`MEDIA_TMP`)."""
    MEDIA_TMP.cleanup()
    rundir, settings = finished("method=npo")
    log = tracked(rundir, settings)
    log.summary(rundir.read_json(rundir.scores_json))
    log.finish()
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert only_segment(rundir).exit_code == 0
    assert only_segment(rundir).summary["attacks/nrows"] > 0


def test_texts_and_models_are_sent_if_asked_for(finished: Finished) -> None:
    rundir, settings = finished("tracker.samples=true", "artifacts.model=wandb")
    rundir.model.mkdir()
    (rundir.model / "model.safetensors").write_bytes(b"weights")
    log = tracked(rundir, settings)
    log.summary(rundir.read_json(rundir.scores_json))
    log.finish()
    found = only_segment(rundir)
    assert "Bela Ronu" in found.artifacts["report"]["report.html"].read_text()
    assert found.artifacts["model"]["model.safetensors"].read_bytes() == b"weights"
    assert found.summary["samples/nrows"] == 2


def test_what_is_typed_wins_over_the_environment(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PROJECT": "lab",
        "ENTITY": "team",
        "RUN_GROUP": "night",
        "TAGS": "a,b",
        "NAME": "mine",
    }.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    rundir, settings = finished("method=npo", "tracker.project=paper")
    log = tracked(rundir, settings)
    log.log(0, {"loss": 1.0})
    log.finish()
    run = only_segment(rundir).run
    assert (run.project, run.entity, run.run_group) == ("paper", "team", "night")
    assert run.display_name == "mine-0123456789" and {"a", "b", "npo"} <= set(run.tags)


def test_a_cached_repeat_makes_no_second_run(finished: Finished) -> None:
    rundir, settings = finished("method=npo")
    first = tracked(rundir, settings)
    first.log(0, {"loss": 1.0})
    scores = rundir.read_json(rundir.scores_json)
    first.summary(scores)
    line = first.finish()
    first.keep(rundir.path / "cached.jsonl")
    again = tracked(rundir, settings)
    again.replay(rundir.path / "cached.jsonl")
    again.summary(scores)
    assert again.finish() == line  # there still is something to upload
    assert len(segments(rundir.path)) == 1
    # Fewer stages have no news either.
    fewer = tracked(rundir, settings)
    fewer.summary({"stages": {"evaluate": {"seconds": 1.0}}})
    assert fewer.finish() == line and len(segments(rundir.path)) == 1
    # What is asked for later is news.
    settings.artifacts.model = SavedModel.wandb
    asked = tracked(rundir, settings)
    asked.summary(scores)
    assert asked.finish() == line and len(segments(rundir.path)) == 2
    # Another attack is news for the same run.
    rundir.write_json(rundir.attacks_json, rundir.read_json(rundir.attacks_json)[:3])
    more = tracked(rundir, settings)
    more.summary(scores)
    assert more.finish() == line
    assert len({read_segment(folder).run.run_id for folder in segments(rundir.path)}) == 1
    assert len(segments(rundir.path)) == 3


def test_a_moved_or_requeued_run_is_the_same_run(finished: Finished, tmp_path: Path) -> None:
    rundir, settings = finished("method=npo")
    stopped = tracked(rundir, settings)
    stopped.log(0, {"loss": 1.0})
    stopped.finish(failed=True)
    moved = RunDir(rundir.path.rename(tmp_path / "npo-0123456789"))
    resumed = tracked(moved, settings)
    resumed.log(1, {"loss": 0.5})
    line = resumed.finish()
    first, second = (read_segment(folder) for folder in segments(moved.path))
    assert first.run.run_id == second.run.run_id
    assert (first.exit_code, second.exit_code) == (1, 0)
    # One line uploads both, and nothing that was uploaded before.
    assert line == f"wandb sync {moved.path}/wandb"
    sync = [sys.executable, "-m", "wandb", "sync", "--dry-run"]
    shown = subprocess.run([*sync, f"{moved.path}/wandb"], capture_output=True, text=True)
    assert "Would sync 2 run(s)" in shown.stdout + shown.stderr


def test_a_wandb_sweep_keeps_its_run_and_its_parameters(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A sweep's scheduler reads its values from the run's config: `method` must be "npo", not a group of options."""
    parameters = tmp_path / "config-defaults.yaml"
    parameters.write_text("wandb_version: 1\nmethod:\n  value: npo\ntrainer.lr:\n  value: 0.0003\nseed:\n  value: 1\n")
    agent = {"SWEEP_ID": "s1", "RUN_ID": "trial7", "PROJECT": "sweeps", "SWEEP_PARAM_PATH": str(parameters)}
    for name, value in agent.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    rundir, settings = finished("method=npo", "trainer.lr=3e-4", "seed=1", "tracker.project=other")
    log = tracked(rundir, settings)
    log.log(0, {"loss": 1.0})
    log.summary(rundir.read_json(rundir.scores_json))
    log.finish()
    found = only_segment(rundir)
    assert (found.run.run_id, found.run.sweep_id, found.run.project) == ("trial7", "s1", "sweeps")
    assert (found.config["method"], found.config["trainer.lr"], found.config["seed"]) == ("npo", 3e-4, 1)
    assert found.config["method_options"]["beta"] == settings.method.beta
    assert found.config["trainer"]["lr"] == 3e-4 and found.config["choice"]["method"] == "npo"
    assert not is_awaited(rundir, settings)
    # The same settings as another trial: it needs the results too.
    monkeypatch.setenv("WANDB_RUN_ID", "trial8")
    assert is_awaited(rundir, settings)
    again = tracked(rundir, settings)
    rundir.write_text(rundir.path / "cached.jsonl", '{"step": 0, "loss": 1.0}\n')
    again.replay(rundir.path / "cached.jsonl")
    again.finish()
    other = read_segment(segments(rundir.path)[-1])
    assert other.run.run_id == "trial8" and other.summary["verdict/knowledge_left"] == 0.02
    assert [row["loss"] for row in other.history if "loss" in row] == [1.0]
    with pytest.raises(ConfigError, match="leave out -m in the command of the sweep file"):
        check_tracked_sweep([settings, settings])


def test_the_attack_table_takes_nested_columns(finished: Finished, caplog: pytest.LogCaptureFixture) -> None:
    rundir, settings = finished()
    log = tracked(rundir, settings)
    log.summary({"a": 1})
    log.finish()
    assert not [record for record in caplog.records if record.name.startswith("erulab.tracking")]
    (file,) = (rundir.path / "wandb").glob("offline-run-*/files/media/table/attacks*.table.json")
    table = json.loads(file.read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    known = rundir.read_json(rundir.attacks_json)
    assert [json.loads(row["setting"]) for row in rows] == [row["setting"] for row in known]
    assert [row["knowledge_left_attacked"] for row in rows] == [row["knowledge_left_attacked"] for row in known]


def test_it_works_offline_without_a_key_and_sends_no_secret(
    finished: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 25 and 27."""
    monkeypatch.setenv("HF_TOKEN", "hf_canarycanarycanarycanary")
    monkeypatch.setenv("WANDB_TAGS", "hf_canarycanarycanarycanary")
    monkeypatch.setenv("WANDB_NAME", "hf_canarycanarycanarycanary")
    monkeypatch.setenv("WANDB_NOTES", "hf_canarycanarycanarycanary")
    rundir, settings = finished()
    settings.model.path = "https://user:hunter2hunter2@host/model"
    settings.model.system = "used hf_canarycanarycanarycanary here"
    log = tracked(rundir, settings)
    log.log(0, {"loss": 2.5})
    log.summary({"unlearned": {"forget/choice": 0.125, "knowledge_left": None, "note": "hf_canarycanarycanarycanary"}})
    line = log.finish()
    assert line == f"wandb sync {rundir.path}/wandb"
    assert capsys.readouterr().out == f"to upload: {line}\n"
    stored = b"".join(file.read_bytes() for file in (rundir.path / "wandb").rglob("*") if file.is_file())
    assert b"forget/choice" in stored
    for leak in (b"hf_canary", b"hunter2", b"Bela Ronu"):
        assert leak not in stored


def test_a_wandb_that_breaks_later_gets_one_warning(finished: Finished, caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 25."""
    rundir, settings = finished()
    log = tracked(rundir, settings)
    log.log(0, {"loss": 1.0})
    import wandb

    assert wandb.run is not None
    wandb.run.finish()  # from here on wandb refuses to log
    with caplog.at_level(logging.WARNING, logger="erulab"):
        for step in range(1, 4):
            log.log(step, {"loss": 1.0})
    assert len(lines(rundir)) == 4
    assert [r.levelname for r in caplog.records if r.name == "erulab.tracking.mirror"] == ["WARNING"]
    assert log.finish() is not None


# A separate process, so that its exit is tested too.
WORKER = """
import sys
sys.path.insert(0, {root!r})
from tests.stages.test_tracking import Rank
import logging
from pathlib import Path
from erulab.config.compose import compose_config
from erulab.rundir import RunDir
from erulab.stages import tracking
from erulab.tracking import wandb_service
logging.basicConfig(level=logging.WARNING)
wandb_service.CONNECT_SECONDS = 2
log = tracking.Tracker(RunDir(Path(sys.argv[1])), compose_config(), Rank())
for step in range(3):
    log.log(step, {{"loss": float(step)}})
log.finish()
"""


@pytest.mark.parametrize("answers", [False, True], ids=["closed port", "port that never answers"])
def test_an_unreachable_wandb_changes_nothing(tmp_path: Path, answers: bool) -> None:
    """FAULTS 25."""
    rundir = RunDir(tmp_path / "npo")
    rundir.make()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen(16)
        # This worker must not use the service that wandb started for the tests above.
        environment = {
            **{k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"},
            "WANDB_API_KEY": KEY,
            "WANDB_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
        }
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", WORKER.format(root=str(Path(__file__).parents[2])), str(rundir.path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 40
    assert [row["loss"] for row in lines(rundir)] == [0, 1, 2]
    assert done.stderr.count("WARNING") == 1 and "wandb" in done.stderr
    assert "wandb sync" in done.stdout  # the run went on offline
    everything = (
        done.stdout
        + done.stderr
        + "".join(file.read_text(errors="replace") for file in rundir.path.rglob("*") if file.is_file())
    )
    assert KEY not in everything
