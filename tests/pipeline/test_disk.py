"""A full disk and too little memory end a run with 4 and 75, wherever they show; the same command then completes it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from erulab.attacks.quantize import Quantize
from erulab.rundir import RunDir
from erulab.stages import space
from tests.pipeline.conftest import Finished, Runner

BOTH = "attack=[relearn,quantize]"
ANEW = "attack.quantize.bits=[3]"  # no other test makes it


def _fails(error: Exception) -> Any:
    def attempts(*_: Any, **__: Any) -> Any:
        raise error

    return attempts


def _rows(done: Finished, attack: str) -> list[dict[str, Any]]:
    return [row for row in done.read("attacks.json") if row["attack"] == attack]


def test_a_full_disk_within_an_attack_ends_the_run(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 18: no row says "failed", and once there is room the same command makes the attack."""
    with monkeypatch.context() as full:
        full.setattr(Quantize, "attempts", _fails(OSError(errno.ENOSPC, "No space left on device")))
        stopped = run(BOTH, ANEW)
    ended = stopped.read("exit.json")
    assert stopped.code == ended["code"] == 4
    assert "no space left" in ended["message"] and ".cache" in ended["message"] and "continues" in ended["message"]
    assert not any(row["setting"].get("bits") == 3 for row in _rows(stopped, "quantize"))
    done = run(BOTH, ANEW)
    assert done.code == 0 and any(row["setting"].get("bits") == 3 and row["n"] for row in _rows(done, "quantize"))


def test_too_little_memory_within_an_attack_ends_the_run(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 23: the stage, the peak and three overrides."""
    monkeypatch.setattr(Quantize, "attempts", _fails(RuntimeError("DefaultCPUAllocator: can't allocate memory")))
    stopped = run(BOTH, "attack.quantize.bits=[2]")
    message = stopped.read("exit.json")["message"]
    assert stopped.code == 75
    assert "out of memory in the stage attack, which has held" in message and " GB" in message
    assert "evaluation.batch_tokens=2048, fewer attacks, such as attack=[relearn], trainer.micro_batch=4;" in message


def test_a_run_whose_only_attack_fails_on_all_models_is_done(run: Runner) -> None:
    """FAULTS 16: a loss that is not a number is a row in attacks.json, with the report, as beside another attack."""
    done = run("attack=[relearn]", "attack.relearn.lr=[1e12]", "attack.relearn.repeats=1")
    assert done.code == 0
    (row,) = [row for row in _rows(done, "relearn") if "failed" in str(row)]
    assert row["n"] == 0 and (done.rundir.path / "report.md").is_file()


def test_too_little_space_is_told_before_the_first_training(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 18: both numbers; checkpoints count; what the cache has already does not."""
    full = tmp_path / "cache"
    parameters = 4 * 10**5  # the three small models have fewer weights than these bytes
    monkeypatch.setattr(space, "free_bytes", lambda _: parameters)
    refused = run(BOTH, f"cache={full}", "trainer.save_every=1")
    message = refused.read("exit.json")["message"]
    assert refused.code == 4 and str(full) in message and "0.0004 GB are free" in message
    assert "3 models" in message and "trainer.save_every=null" in message
    assert not (full / "learned").exists()
    monkeypatch.setattr(space, "free_bytes", lambda _: 0)
    assert run(BOTH).code == 0, "all models are in the cache"


def test_saved_weights_can_be_read_by_whoever_may_read_new_files(first: Finished) -> None:
    """safetensors makes its files private; a shared cache could not be read by others."""
    mask = os.umask(0)
    os.umask(mask)
    files = [*first.rundir.path.parents[1].glob(".cache/*/*/model/*"), *first.rundir.model.iterdir()]
    assert any(file.suffix == ".safetensors" for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o666 & ~mask}


def test_a_write_that_fails_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 18: the old content stays."""
    file = tmp_path / "scores.json"
    file.write_text("old")
    monkeypatch.setattr(os, "fsync", _fails(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        RunDir(tmp_path).write_text(file, "new")
    assert [one.name for one in tmp_path.iterdir()] == ["scores.json"] and file.read_text() == "old"
