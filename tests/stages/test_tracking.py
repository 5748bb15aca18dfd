"""metrics.jsonl. What trackers get is in tests/tracking."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from erulab.methods.npo import NPOOptions
from erulab.models.hf import HfOptions
from erulab.options import RunConfig, TrackerName, TrackerOptions
from erulab.redaction import redacted
from erulab.rundir import RunDir
from erulab.stages.tracking import Tracker

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
    heavy = "{'wandb', 'torch._C', 'matplotlib'}"
    loaded = "erulab.stages.tracking, erulab.reporting.console, erulab.report"
    code = f"import sys, {loaded}; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
