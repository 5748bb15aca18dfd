"""A rank that is stopped or hangs ends the run and is named; one that works for long, or waits for others, does not.

Real ranks under the real torchrun, which exchange values with gloo; the limit is seconds in place of minutes.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from erulab.launching import workers
from erulab.launching.silence import SilenceWatch
from erulab.launching.workers import RunExit
from erulab.rundir import RunDir
from tests.launching.test_workers import survivors, when_ready

Worker = Callable[[str], str]
SECONDS = 3.0
# Both ranks meet, rank 1 does something else, and both meet again.
MEET = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
dist.barrier()
(folder / f"pid{rank}").write_text(str(os.getpid()))
def other():
    OTHER
if rank == 1:
    other()
(folder / f"ready{rank}").touch()
dist.barrier()
end(0)
"""


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    folder = RunDir(tmp_path / "run")
    folder.make()
    return folder


def run_two(rundir: RunDir, module: str, seconds: float = SECONDS) -> RunExit:
    ended = workers.run_workers(rundir, 2, module, timeout=seconds)
    assert survivors(rundir) == []
    assert rundir.beats == []
    assert rundir.read_json(rundir.exit_json)["code"] == ended.code
    return ended


def beat_of(rundir: RunDir, rank: int) -> dict[str, Any]:
    """Returns the last beat of a rank; empty while there is none, or it is just being written."""
    try:
        beat: dict[str, Any] = json.loads(rundir.beat(rank).read_bytes())
    except (OSError, ValueError):
        return {}
    return beat


def test_a_rank_that_hangs_is_named_with_its_place(rundir: RunDir, worker: Worker) -> None:
    """FAULTS 22, 34."""
    ended = run_two(rundir, worker(MEET.replace("OTHER", "time.sleep(300)")))
    assert (ended.code, ended.rank) == (75, 1)
    assert "rank 1 has been silent in " in ended.message and "(other) for 3 s (engine.timeout)" in ended.message
    assert "rank 0" not in ended.message and "the same command continues" in ended.message


def test_a_stopped_rank_is_named_though_it_waits_for_others(
    rundir: RunDir, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 22, 34. Rank 0 is stopped inside the exchange that rank 1 comes to later."""
    monkeypatch.setattr("erulab.launching.silence.STALE_SECONDS", 2)
    module = worker(MEET.replace("OTHER", "t = time.monotonic()\n    while time.monotonic() - t < 4: time.sleep(.05)"))

    def stop() -> None:
        before = beat_of(rundir, 0).get("number", 0)  # it may be of the first exchange
        while not (beat := beat_of(rundir, 0)).get("waits") or beat["number"] <= before + 1:
            time.sleep(0.02)
        os.kill(int((rundir.path / "pid0").read_text()), signal.SIGSTOP)

    when_ready(rundir, 1, stop)
    ended = run_two(rundir, module)
    assert (ended.code, ended.rank) == (75, 0)
    assert "rank 0 has been silent" in ended.message


def test_ranks_that_wait_for_one_another_end(rundir: RunDir, worker: Worker) -> None:
    """FAULTS 34. One rank is in an exchange that the other never comes to."""
    ended = run_two(rundir, worker(MEET.replace("OTHER", "dist.recv(torch.zeros(1), 0)")))
    assert ended.code == 75
    assert "all ranks have waited for one another for 3 s" in ended.message and "rank 1 in " in ended.message


def test_a_rank_that_works_for_long_is_not_silent(rundir: RunDir, worker: Worker) -> None:
    """It computes, polls (as at the lock of a product), has a program compute: each for longer than the limit."""
    work = """
    t = time.monotonic()
    a = torch.randn(700, 700)
    while time.monotonic() - t < 4: a @ a
    while time.monotonic() - t < 8: time.sleep(.05)
    import subprocess
    subprocess.run(["timeout", "4", "sh", "-c", "while :; do :; done"])
    """
    assert run_two(rundir, worker(MEET.replace("    OTHER", work)), 2.5).code == 0


def started(rank: int) -> Any:
    """Stands in for the log of a torchrun that has started one rank."""
    return SimpleNamespace(ranks={0: rank})


def test_time_in_which_the_watch_itself_was_stopped_does_not_count(rundir: RunDir) -> None:
    watch = SilenceWatch(rundir, 600, gpus=False, one_host=True)
    watch._looked_at -= 3600  # a suspended job
    assert watch.look(started(0)) is None and watch._watched[0].still <= 2


def test_a_rank_that_never_starts_to_beat_is_silent(rundir: RunDir) -> None:
    watch = SilenceWatch(rundir, 1, gpus=False, one_host=True)
    watch._looked_at -= 1
    found = watch.look(started(3))
    assert found is not None and found.rank == 3
    assert found.why == "rank 3 has been silent since it started for 1 s (engine.timeout)"
