"""metrics.jsonl and its mirror in wandb."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from erulab.methods.npo import NPOOptions
from erulab.models.hf import HfOptions
from erulab.options import RunConfig, TrackerName, TrackerOptions
from erulab.redaction import redacted
from erulab.rundir import RunDir
from erulab.stages.tracking import Tracker
from erulab.stages.wandb_mirror import run_id

KEY = "0123456789abcdef" * 2 + "01234567"  # 40 digits, as wandb's keys are


class Rank:
    """Stands for `Ranks`, without torch."""

    def __init__(self, first: bool = True) -> None:
        self.first = first


def config(tracker: TrackerName, **changes: Any) -> RunConfig:
    return RunConfig(
        model=HfOptions(name="hf", path="org/model"),
        dataset={"name": "tofu"},
        method=NPOOptions(name="npo"),
        reward={"name": "reference"},
        adversary={"name": "none"},
        tracker=TrackerOptions(name=tracker, **changes),
    )


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    rundir = RunDir(tmp_path / "npo")
    rundir.path.mkdir()
    return rundir


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))


def lines(rundir: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rundir.metrics_jsonl.read_text().splitlines()]


def tracker(rundir: RunDir, first: bool = True) -> Tracker:
    return Tracker(rundir, config(TrackerName.none), Rank(first))  # type: ignore[arg-type]


def test_every_logged_step_is_a_json_line(rundir: RunDir) -> None:
    log = tracker(rundir)
    log.log(0, {"loss": 2.5, "method/depth": 0.0})
    log.log(1, {"loss": 2.25, "grad_norm": float("inf"), "method/depth": float("nan")})
    first, second = lines(rundir)
    assert first["step"] == 0 and first["loss"] == 2.5 and first["stage"] == "unlearn"
    # JSON has no NaN, and strict readers must be able to read the file.
    assert second["grad_norm"] is None and second["method/depth"] is None
    assert "NaN" not in rundir.metrics_jsonl.read_text()


def test_a_resumed_run_drops_the_steps_it_repeats(rundir: RunDir) -> None:
    before = tracker(rundir)
    for step in range(8):
        before.log(step, {"loss": float(step)})
    with rundir.metrics_jsonl.open("a") as file:
        file.write('{"step": 8, "lo')  # killed in the middle of a line
    resumed = tracker(rundir)
    for step in (5, 6):  # the checkpoint was taken after step 4
        resumed.log(step, {"loss": 100.0 + step})
    assert [row["step"] for row in lines(rundir)] == [0, 1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in lines(rundir)] == [0, 1, 2, 3, 4, 105, 106]


def test_only_the_first_rank_writes(rundir: RunDir) -> None:
    other = tracker(rundir, first=False)
    other.log(0, {"loss": 1.0})
    other.summary({"unlearned": {"forget/choice": 0.1}})
    assert other.finish() is None
    assert list(rundir.path.iterdir()) == []


def test_metrics_of_a_cached_product_are_taken_over(rundir: RunDir, tmp_path: Path) -> None:
    cached = tmp_path / "metrics.jsonl"
    cached.write_text('{"step": 0, "loss": 1.5, "stage": "unlearn"}\n')
    tracker(rundir).replay(cached)
    assert lines(rundir) == [{"step": 0, "loss": 1.5, "stage": "unlearn"}]


def test_wandb_works_offline_without_a_key(
    rundir: RunDir, no_key: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 25."""
    monkeypatch.setenv("HF_TOKEN", "hf_canarycanarycanarycanary")
    settings = config(TrackerName.wandb, group="sweep-1")
    settings.model.path = "https://user:hunter2hunter2@host/model"
    settings.model.system = "used hf_canarycanarycanarycanary here"
    rundir.write_json(rundir.samples_json, [{"suite": "forget", "prompt": "SECRETPROMPT", "unlearned": "x"}])
    rundir.write_json(rundir.attacks_json, [{"attack": "relearn", "setting": {"samples": 5}, "valid": True}])
    log = Tracker(rundir, settings, Rank())  # type: ignore[arg-type]
    log.log(0, {"loss": 2.5})
    log.log_stage("target", 0, {"loss": 4.5})
    log.summary({"unlearned": {"forget/choice": 0.125, "knowledge_left": None}})
    line = log.finish()
    assert line is not None and line.startswith("wandb sync ")
    folder = Path(line.removeprefix("wandb sync "))
    assert folder.is_dir() and rundir.path / "wandb" in folder.parents
    assert capsys.readouterr().out == f"to upload: {line}\n"
    assert run_id(rundir) in folder.name
    stored = b"".join(file.read_bytes() for file in (rundir.path / "wandb").rglob("*") if file.is_file())
    assert b"forget/choice" in stored and b"target/loss" in stored
    for leak in (b"hf_canary", b"hunter2", b"SECRETPROMPT"):
        assert leak not in stored
    # Learning the target is not an unlearning step.
    assert len(lines(rundir)) == 1


def test_a_wandb_run_belongs_to_one_folder_on_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed = "npo-0123456789"
    first = run_id(RunDir(tmp_path / keyed))
    monkeypatch.chdir(tmp_path)
    assert run_id(RunDir(keyed)) == first  # resumed, however the folder is spelt
    assert run_id(RunDir(tmp_path / "elsewhere" / keyed)) != first
    monkeypatch.setattr(socket, "gethostname", lambda: "another-machine")
    assert run_id(RunDir(tmp_path / keyed)) != first


def test_samples_are_sent_to_wandb_only_if_asked_for(rundir: RunDir, no_key: None) -> None:
    rundir.write_json(rundir.samples_json, [{"suite": "forget", "prompt": "SHOWNPROMPT", "unlearned": "x"}])
    Tracker(rundir, config(TrackerName.wandb, samples=True), Rank()).finish()  # type: ignore[arg-type]
    stored = b"".join(file.read_bytes() for file in (rundir.path / "wandb").rglob("*") if file.is_file())
    assert b"SHOWNPROMPT" in stored


def test_the_attack_table_takes_nested_columns(rundir: RunDir, no_key: None, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {
            "attack": "relearn",
            "setting": {"samples": 5},
            "chosen": {"target": [{"lr": 0.1}]},
            "repeats": [0.1, None],
            "attempts": [{"chosen": {"lr": 0.1}, "flops": 1.0}],
            "savings": {"0.5": 3},
        },
        {
            "attack": "gcg",
            "setting": {"bits": "x"},
            "chosen": {},
            "repeats": [],
            "attempts": [],
            "savings": {"all": None},
        },
    ]
    rundir.write_json(rundir.attacks_json, rows)
    Tracker(rundir, config(TrackerName.wandb), Rank()).finish()  # type: ignore[arg-type]
    assert not [record for record in caplog.records if record.name == "erulab.stages.wandb_mirror"]
    (file,) = (rundir.path / "wandb").rglob("attacks*.table.json")
    table = json.loads(file.read_text())
    first, second = (dict(zip(table["columns"], row, strict=True)) for row in table["data"])
    assert json.loads(first["chosen"]) == rows[0]["chosen"] and json.loads(first["repeats"]) == [0.1, None]
    assert json.loads(second["setting"]) == {"bits": "x"} and second["attempts"] == "[]"


# A separate process, so that its exit is tested too.
WORKER = """
import sys
sys.path.insert(0, {root!r})
from tests.stages.test_tracking import Rank, TrackerName, config
import logging
from pathlib import Path
from erulab.rundir import RunDir
from erulab.stages import tracking, wandb_mirror
logging.basicConfig(level=logging.WARNING)
wandb_mirror.CONNECT_SECONDS = 2
log = tracking.Tracker(RunDir(Path(sys.argv[1])), config(TrackerName.wandb), Rank())
for step in range(3):
    log.log(step, {{"loss": float(step)}})
log.finish()
"""


@pytest.mark.parametrize("answers", [False, True], ids=["closed port", "port that never answers"])
def test_an_unreachable_wandb_changes_nothing(rundir: RunDir, no_key: None, answers: bool) -> None:
    """FAULTS 25."""
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


def test_a_wandb_that_breaks_later_gets_one_warning(
    rundir: RunDir, no_key: None, caplog: pytest.LogCaptureFixture
) -> None:
    """FAULTS 25."""
    log = Tracker(rundir, config(TrackerName.wandb), Rank())  # type: ignore[arg-type]
    assert log._wandb is not None and log._wandb._run is not None
    log._wandb._run.finish()  # from here on wandb refuses to log
    with caplog.at_level(logging.WARNING, logger="erulab"):
        for step in range(3):
            log.log(step, {"loss": 1.0})
    assert len(lines(rundir)) == 3
    assert [r.levelname for r in caplog.records if r.name == "erulab.stages.wandb_mirror"] == ["WARNING"]
    assert log.finish() is not None


def test_redacts_secrets_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 27."""
    monkeypatch.setenv("MY_SERVICE_PASSWORD", "correct-horse")
    shown = redacted(
        {
            "hub": {"token": "abc", "api_key": "x", "note": f"it is {KEY}, keep it"},
            "paths": ["https://me:pass@host/x", "plain"],
            "password": "p",
            "text": "correct-horse battery",
            "openai": "sk-" + "a" * 24,
            "git": KEY,
            "revision": KEY,
            "max_new_tokens": 200,
            "batch_tokens": 8192,
            "monkey": "banana",
            "key": None,
        }
    )
    assert shown["hub"] == {"token": "[redacted]", "api_key": "[redacted]", "note": "it is [redacted], keep it"}
    assert shown["paths"] == ["https://[redacted]@host/x", "plain"]
    assert shown["password"] == shown["openai"] == "[redacted]" and shown["text"] == "[redacted] battery"
    assert shown["git"] == shown["revision"] == KEY
    assert (shown["max_new_tokens"], shown["batch_tokens"], shown["monkey"], shown["key"]) == (
        200,
        8192,
        "banana",
        None,
    )


def test_wandb_and_torch_are_not_loaded_without_need() -> None:
    heavy = "{'wandb', 'torch', 'matplotlib'}"
    loaded = "erulab.stages.tracking, erulab.reporting.console, erulab.report"
    code = f"import sys, {loaded}; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
