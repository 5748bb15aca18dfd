"""A run counts as finished only while all that it was made of and all that it made is as it was."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from erulab.config.compose import compose_config, save_config
from erulab.launching import finished
from erulab.launching.finished import record_finished
from erulab.launching.job import Job, is_finished, plan_job
from erulab.rundir import RunDir
from tests.commands import Answer
from tests.launching.conftest import write_results


def job(*overrides: str, folder: str | None = "mine") -> Job:
    return plan_job(compose_config(["tracker=none", *overrides]), folder)


def end_well(done: Job) -> None:
    """Does what a run does at its end."""
    done.rundir.make()
    save_config(done.config, done.rundir.run_yaml)
    write_results(done.rundir)
    done.rundir.write_text(done.rundir.report_html, "<p>")
    done.rundir.write_json(done.rundir.exit_json, {"code": 0, "message": "", "rank": 0})
    record_finished(done.rundir, done.config, done.key)


def test_finished_is_with_the_same_settings(here: Path) -> None:
    done = job("attack=quantize")
    assert not is_finished(done)
    end_well(done)
    assert is_finished(done)
    assert is_finished(job("attack=quantize", "engine.timeout=5", "trainer.micro_batch=2"))
    for other in (["attack=[quantize,relearn]"], ["rerun=true"], ["report.margin=0.2"], ["tracker=wandb"]):
        assert not is_finished(job("attack=quantize", *other)), other
    # The group that a sweep gives is none of the run's.
    tracked = dataclasses.replace(job("tracker=wandb").config.tracker, group="sweep")
    end_well(dataclasses.replace(done, config=dataclasses.replace(done.config, tracker=tracked)))
    assert is_finished(job("attack=quantize", "tracker=wandb"))
    assert not is_finished(job("attack=quantize", "tracker=wandb", "tracker.project=other"))
    assert is_finished(job("attack=quantize"))
    done.rundir.write_json(done.rundir.exit_json, {"code": 75, "message": "stopped", "rank": 0})
    assert not is_finished(done)


def test_a_damaged_folder_is_not_finished(here: Path) -> None:
    done = job()
    end_well(done)
    for name in ("exit.json", "run.yaml", "finished.json", "scores.json", "report.html"):
        file = here / "mine" / name
        whole = file.read_bytes()
        for damage in (b"", b"{", b"[]", b"null", b"\xff", b"a: b: c", None):
            file.unlink()
            if damage is not None:
                file.write_bytes(damage)
            assert not is_finished(done), (name, damage)
            file.write_bytes(whole)
            assert is_finished(done)


@pytest.mark.parametrize("large", [False, True])
def test_changed_weights_are_not_finished(large: bool, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 33. Small files are read; of large ones a new time is a change, and only those who set it back escape."""
    monkeypatch.setattr(finished, "SMALL_BYTES", 0 if large else 1000)
    done = job()
    end_well(done)
    weights = done.rundir.model / "model.safetensors"
    os.link(weights, here / "another name")  # as the cache has it
    assert is_finished(done)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert not is_finished(done)


def test_changed_data_and_models_are_not_finished(here: Path) -> None:
    """FAULTS 33: also in a folder that the user named, whose name says nothing of them."""
    data = here / "data"
    data.mkdir()
    rows = [{"prompt": f"who is {name}?", "response": f"{name} sings"} for name in "abcdefgh"]
    for part, own in (("forget", rows[:4]), ("retain", rows[4:])):
        (data / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    typed = ("dataset=jsonl", f"dataset.path={data}")
    done = job(*typed)
    end_well(done)
    assert is_finished(job(*typed))
    (data / "retain.jsonl").write_text(json.dumps(rows[5]) + "\n")
    assert not is_finished(job(*typed))
    # A run whose data changed while it ran is none of either.
    record_finished(done.rundir, done.config, done.key)
    (data / "retain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[4:]))
    end_well(done)
    (data / "forget.jsonl").write_text(json.dumps(rows[0]) + "\n")
    done.rundir.finished_json.unlink()
    record_finished(done.rundir, done.config, done.key)
    assert not done.rundir.finished_json.exists()


def test_another_code_of_erulab_is_not_finished(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = job()
    end_well(done)
    monkeypatch.setattr(finished, "code_identity", lambda: "of another version")
    assert not is_finished(done)


def test_another_commit_from_the_hub_is_not_finished(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's key holds a hub id by its name."""
    commits = {"owner/name": "snapshots/one/config.json"}
    monkeypatch.setattr("erulab.hub.find_fetched", lambda name, file: Path(commits[name]) if name in commits else None)
    config = compose_config(["tracker=none", "model=hf", "model.path=owner/name"])
    wanted = finished._made_of(config, "key")
    assert wanted["hub"] == {"owner/name": "one"}
    commits["owner/name"] = "snapshots/two/config.json"
    assert finished._made_of(config, "key") != wanted


def test_a_finished_command_starts_no_worker_and_says_so(
    command: Callable[..., Answer], worker: Callable[[str], str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = RunDir(here / "results")
    write_results(results)
    results.attacks_json.unlink()
    body = f"""
    import shutil
    shutil.copytree({str(here / "results")!r}, folder, dirs_exist_ok=True)
    with open("ran", "a") as ran:
        ran.write("x")
    end(0)
    """
    monkeypatch.setattr("erulab.launching.job.WORKER", worker(body))
    typed = ("method=npo", "attack=none", "tracker=none", "hydra.run.dir=mine")
    assert "finished before" not in command(*typed).out
    again = command(*typed)
    assert again.code == 0 and again.err == ""
    assert again.out.splitlines()[-2:] == ["finished before; rerun=true repeats it", "run folder: mine"]
    assert "forget/probability" in again.out  # the table of results
    assert (here / "ran").read_text() == "x"
    assert "finished before" not in command(*typed, "rerun=true").out
    assert (here / "ran").read_text() == "xx"
