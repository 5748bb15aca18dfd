"""Jobs that share their imports are workers like others: own log, code, signals; nothing of one reaches another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from erulab.launching import workers
from erulab.launching.hosts import Host
from erulab.launching.prepared import PreparedWorkers, prepared_workers
from erulab.launching.workers import RunExit
from erulab.rundir import RunDir

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks workers")
HEAD = """
import json, os, pathlib, signal, sys, time
IMPORTED = os.getpid()
def main(argv):
    folder = pathlib.Path(argv[0])
    (folder / "pids").write_text(json.dumps([IMPORTED, os.getpid(), os.getsid(0)]))
    def end(code, message=""):
        (folder / "exit.json").write_text(json.dumps({"code": code, "message": message, "rank": 0}))
        print(message, flush=True)
        return code
"""
WAIT = """
    came = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    (folder / "ready").touch()
    while not came:
        time.sleep(.02)
    return end(75, "stopped")
"""
# What a test does comes from the folder's name, because one module serves all jobs.
BODY = (
    HEAD
    + """
    if folder.name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if folder.name == "code":
        return end(3, "no rows")
    if folder.name == "locked":
        held = [os.path.basename(os.readlink(f"/proc/self/fd/{n}")) for n in os.listdir("/proc/self/fd")
                if os.path.exists(f"/proc/self/fd/{n}")]
        return end(0, f"holds {held.count('lock')}")
    if folder.name.startswith("wait"):
"""
    + WAIT.replace("\n    ", "\n        ")
    + """
    return end(0, f"done {os.environ.get('COLUMNS')}")
"""
)


@pytest.fixture
def prepared() -> Iterator[PreparedWorkers]:
    with prepared_workers() as workers_of_one_sweep:
        yield workers_of_one_sweep


@pytest.fixture
def start(tmp_path: Path, prepared: PreparedWorkers, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunExit]:
    """Runs a job by name."""
    (tmp_path / "forked.py").write_text(BODY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(workers.__file__).parents[2]}")

    def run(name: str) -> RunExit:
        return workers.run_workers(folder(tmp_path, name), 1, "forked", start=prepared.start)

    return run


def folder(tmp_path: Path, name: str) -> RunDir:
    rundir = RunDir(tmp_path / name)
    rundir.make()
    return rundir


def pids(tmp_path: Path, name: str) -> list[int]:
    """Returns the process that imported the module, the job's and its session."""
    found: list[int] = RunDir(tmp_path / name).read_json(tmp_path / name / "pids")
    return found


def when_ready(tmp_path: Path, name: str, act: Callable[[], None]) -> None:
    def watch() -> None:
        while not (tmp_path / name / "ready").exists():
            time.sleep(0.02)
        act()

    threading.Thread(target=watch, daemon=True).start()


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_jobs_share_one_import_and_nothing_else(
    start: Callable[..., RunExit], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 30: a crash of one is no crash of the next."""
    monkeypatch.delenv("COLUMNS", raising=False)
    assert start("code") == RunExit(3, "no rows")
    crashed = start("crash")
    assert (crashed.code, crashed.message) == (1, "rank 0 ended by signal 11 (SIGSEGV) and left no message")
    assert start("good").code == 0
    imported, own, sessions = zip(*(pids(tmp_path, name) for name in ("code", "crash", "good")), strict=True)
    assert len(set(imported)) == 1 and own == sessions
    assert len({*own, *imported}) == 4
    assert (tmp_path / "good" / "rank0.log").read_text() == "done None\n"
    assert capsys.readouterr().out == "no rows\ndone None\n"


def test_a_copy_alone_holds_the_lock(start: Callable[..., RunExit], tmp_path: Path, prepared: PreparedWorkers) -> None:
    rundir = folder(tmp_path, "locked")
    start("good")
    with rundir.locked() as handle:
        host = Host(rundir)
        host.inherited = (handle,)
        ended = workers.run_workers(rundir, 1, "forked", host=host, start=prepared.start)
        assert "holds 1" in rundir.rank_log(0).read_text() and ended.code == 0
        descriptors = Path(f"/proc/{pids(tmp_path, 'good')[0]}/fd")
        assert str(rundir.lock()) not in [os.readlink(one) for one in descriptors.iterdir()]


def test_signals_reach_the_copy(start: Callable[..., RunExit], tmp_path: Path) -> None:
    """FAULTS 30. Also when the one that imports gets it, as where a whole job is signalled."""

    def signal_all() -> None:
        os.kill(pids(tmp_path, "wait")[0], signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

    when_ready(tmp_path, "wait", signal_all)
    ended = start("wait")
    assert (ended.code, ended.message, ended.stopped) == (75, "stopped", True)
    assert start("good").code == 0
    assert pids(tmp_path, "good")[0] == pids(tmp_path, "wait")[0]


@pytest.mark.parametrize("who", [0, 1])
def test_a_killed_process_ends_its_job_only(start: Callable[..., RunExit], tmp_path: Path, who: int) -> None:
    """FAULTS 22: the copy, or the one that imports; nothing is left, and the next job runs."""
    when_ready(tmp_path, "wait", lambda: os.kill(pids(tmp_path, "wait")[who], signal.SIGKILL))
    ended = start("wait")
    assert (ended.code, ended.stopped) == (75, False)
    assert "killed by signal 9" in ended.message
    assert not runs(pids(tmp_path, "wait")[1])
    assert start("good").code == 0
    assert (pids(tmp_path, "good")[0] == pids(tmp_path, "wait")[0]) is (who == 1)


def test_a_signal_during_the_imports_ends_them(
    tmp_path: Path, prepared: PreparedWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow.py").write_text("import time, pathlib\npathlib.Path('ready').touch()\ntime.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(workers.__file__).parents[2]}")
    monkeypatch.chdir(tmp_path)
    rundir = folder(tmp_path, "run")

    def stop() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    began = time.monotonic()
    ended = workers.run_workers(rundir, 1, "slow", start=prepared.start)
    assert (ended.code, ended.stopped) == (75, True) and time.monotonic() - began < 30


def test_what_cannot_be_imported_is_started_as_a_process_that_says_why(
    tmp_path: Path, prepared: PreparedWorkers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('broken')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(workers.__file__).parents[2]}")
    assert workers.run_workers(folder(tmp_path, "run"), 1, "broken", start=prepared.start).code == 1
    assert "RuntimeError: broken" in capsys.readouterr().out


def test_another_environment_has_a_process_of_its_own(
    start: Callable[..., RunExit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "forked.py").write_text(BODY + '\nif __name__ == "__main__":\n    sys.exit(main(sys.argv[1:]))\n')
    start("first")
    monkeypatch.setenv("COLUMNS", "77")
    start("second")
    assert "done 77" in (tmp_path / "second" / "rank0.log").read_text()
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    start("third")
    imported, own, _ = pids(tmp_path, "third")
    assert imported == own
    assert pids(tmp_path, "first")[0] == pids(tmp_path, "second")[0] != imported


def test_nothing_is_left_of_a_sweep_that_was_killed(tmp_path: Path) -> None:
    """FAULTS 22: the process that imports ends with the command."""
    (tmp_path / "forked.py").write_text(BODY)
    (tmp_path / "good").mkdir()
    script = f"""
import os, pathlib, signal
from erulab.launching import workers
from erulab.launching.hosts import Host
from erulab.launching.prepared import prepared_workers
from erulab.rundir import RunDir
with prepared_workers() as prepared:
    workers.run_workers(RunDir({str(tmp_path / "good")!r}), 1, "forked", start=prepared.start)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = f"{tmp_path}:{Path(workers.__file__).parents[2]}"
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL)
    server = pids(tmp_path, "good")[0]
    deadline = time.monotonic() + 10
    while runs(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(server)
