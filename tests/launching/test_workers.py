"""Workers: their exit code and last lines reach the user, signals reach them, no process is left behind.

Stand-ins for erulab.worker, in real processes; two ranks under the real torchrun.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from erulab.config.compose import compose_config, load_config
from erulab.launching import torchrun, workers
from erulab.launching.job import plan_job, run_job
from erulab.launching.processes import Child
from erulab.rundir import RunDir

Worker = Callable[[str], str]
WAIT = """
(folder / f"pid{rank}").write_text(str(os.getpid()))
came = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda n, _: came.append(n))
(folder / f"ready{rank}").touch()
while not came:
    time.sleep(.02)
time.sleep(HOW_LONG)
end(75, f"stopped by {came[0]}")
"""


# The rank that got the signal tells the other which it was.
AGREE = """
if not (folder / "stop").exists():
    (folder / "stop.new").write_text(str(came[0]))
    (folder / "stop.new").rename(folder / "stop")
said = (folder / "stop").read_text()
time.sleep(.3 * rank)
"""


def when_ready(rundir: RunDir, ranks: int, act: Callable[[], None]) -> None:
    """Calls `act` from a thread once every rank waits."""

    def watch() -> None:
        while not all((rundir.path / f"ready{rank}").exists() for rank in range(ranks)):
            time.sleep(0.02)
        act()

    threading.Thread(target=watch, daemon=True).start()


def survivors(rundir: RunDir) -> list[psutil.Process]:
    marked = str(rundir.path)
    return [p for p in psutil.process_iter() if p.pid != os.getpid() and marked in " ".join(_line(p))]


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    folder = RunDir(tmp_path / "run")
    folder.make()
    return folder


def test_output_is_shown_and_kept_without_escapes(
    rundir: RunDir, worker: Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    """FAULTS 29."""
    module = worker(r"""
    print("début \x1b[1mbold\x1b[0m")
    for step in range(3):
        print(f"\rstep {step}", end="")
    print("\n\nlast", file=sys.stderr)
    end(0)
    """)
    ended = workers.run_workers(rundir, 1, module)
    assert ended.code == 0
    assert "début \x1b[1mbold" in capsys.readouterr().out
    assert rundir.rank_log(0).read_text() == "début bold\nstep 2\n\nlast\n\n"


def test_the_code_of_exit_json_counts(rundir: RunDir, worker: Worker) -> None:
    ended = workers.run_workers(rundir, 1, worker('end(3, "0 rows")'))
    assert (ended.code, ended.message, ended.rank) == (3, "0 rows", 0)
    # A stale one does not.
    assert workers.run_workers(rundir, 1, worker("sys.exit(9)")).code == 1


def test_a_crash_shows_the_last_lines_and_the_log(
    here: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = worker('print("before")\nraise RuntimeError("boom")')
    monkeypatch.setattr("erulab.launching.job.WORKER", module)
    job = plan_job(compose_config())
    assert run_job(job).code == 1
    printed = capsys.readouterr()
    assert "boom" in printed.out
    assert str(job.rundir.rank_log(0)) in printed.err
    assert f"run folder: {job.rundir.path}" in printed.out
    assert load_config(job.rundir.run_yaml) == job.config
    assert job.rundir.read_json(job.rundir.env_json)["cores"] >= 1
    assert job.rundir.read_json(job.rundir.exit_json)["code"] == 1


def test_each_rank_has_a_log_and_the_failing_one_is_shown(
    here: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = worker("""
    print("rank", rank, os.environ["DS_ACCELERATOR"], os.environ["WORLD_SIZE"], flush=True)
    if rank == 1:
        raise RuntimeError("boom")
    time.sleep(60)
    """)
    monkeypatch.setattr("erulab.launching.job.WORKER", module)
    monkeypatch.setattr(workers.machine, "gpus", list)
    # Not the folder that another test's run has by the same name below its own working folder.
    job = plan_job(compose_config(["engine=zero2", "engine.processes=2", f"output={here}/outputs"]))
    ended = run_job(job)
    assert (ended.code, ended.rank) == (1, 1)
    assert job.rundir.rank_log(0).read_text().startswith("rank 0 cpu 2")
    printed = capsys.readouterr()
    assert "rank 0 cpu 2" in printed.out
    assert "rank 1" not in printed.out
    assert "RuntimeError: boom" in printed.err
    assert str(job.rundir.rank_log(1)) in printed.err
    assert survivors(job.rundir) == []


@pytest.mark.parametrize(("ranks", "number"), [(1, signal.SIGINT), (2, signal.SIGUSR1)])
def test_one_signal_lets_workers_finish(rundir: RunDir, worker: Worker, ranks: int, number: signal.Signals) -> None:
    """FAULTS 30."""
    module = worker(WAIT.replace("HOW_LONG", "0.3"))
    when_ready(rundir, ranks, lambda: os.kill(os.getpid(), number))
    ended = workers.run_workers(rundir, ranks, module)
    assert (ended.code, ended.stopped) == (75, True)
    # SIGINT would leave a traceback in a worker that is still importing.
    received = signal.SIGTERM if number == signal.SIGINT else number
    assert ended.message == f"stopped by {int(received)}"
    assert survivors(rundir) == []
    # Ours are as they were.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_two_signals_kill_at_once(rundir: RunDir, worker: Worker) -> None:
    """FAULTS 30."""
    module = worker(WAIT.replace("HOW_LONG", "60"))
    started = []

    def twice() -> None:
        started.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    when_ready(rundir, 2, twice)
    ended = workers.run_workers(rundir, 2, module)
    assert time.monotonic() - started[0] < 5
    assert (ended.code, ended.stopped) == (75, True)
    assert survivors(rundir) == []


def test_a_killed_rank_ends_a_deaf_one(rundir: RunDir, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 22."""
    monkeypatch.setattr(workers, "SURVIVE_SECONDS", 1)
    module = worker(WAIT.replace("HOW_LONG", "60"))  # rank 0 goes on after torchrun's SIGTERM
    when_ready(rundir, 2, lambda: os.kill(int((rundir.path / "pid1").read_text()), signal.SIGKILL))
    ended = workers.run_workers(rundir, 2, module)
    assert (ended.code, ended.rank, ended.stopped) == (75, 1, False)
    assert "killed by signal 9" in ended.message
    assert rundir.read_json(rundir.exit_json)["code"] == 75
    assert survivors(rundir) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_to_one_rank_stops_all(rundir: RunDir, worker: Worker, number: signal.Signals) -> None:
    """FAULTS 30. Ranks agree to stop, so another than the one that got the signal may be the first to say so."""
    agree = WAIT.replace("while not came:", "while not came and not (folder / 'stop').exists():")
    agree = agree.replace("SIGUSR1", "SIGQUIT").replace("came[0]", "said").replace("time.sleep(HOW_LONG)", AGREE)
    module = worker(agree)
    when_ready(rundir, 2, lambda: os.kill(int((rundir.path / "pid1").read_text()), number))
    ended = workers.run_workers(rundir, 2, module)
    assert (ended.code, ended.message) == (75, f"stopped by {int(number)}")
    assert survivors(rundir) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_torchrun_can_be_continued(
    rundir: RunDir, worker: Worker, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 22, 30."""
    module = worker(WAIT.replace("HOW_LONG", "0"))

    started: list[Child] = []

    class Kept(Child):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            started.append(self)

    monkeypatch.setattr(workers, "Child", Kept)

    def kill() -> None:
        pids = [int((rundir.path / f"pid{rank}").read_text()) for rank in range(2)]
        while not {*pids} <= {process.pid for process in started[0]._descendants.copy()}:
            time.sleep(0.02)
        os.kill(psutil.Process(pids[0]).ppid(), number)

    when_ready(rundir, 2, kill)
    ended = workers.run_workers(rundir, 2, module)
    said = "stopped by 15" if number == signal.SIGTERM else "torchrun, which starts the ranks, was killed by signal 9"
    assert ended.code == 75 and ended.message.startswith(said)
    assert survivors(rundir) == []


def test_ranks_end_with_their_torchrun(rundir: RunDir, worker: Worker) -> None:
    """FAULTS 22. Also where nobody is left who could stop them."""
    module = worker(WAIT.replace("HOW_LONG", "60"))
    command = torchrun.torchrun_command(2, None, [module, str(rundir.path)])
    alone = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not all((rundir.path / f"ready{rank}").exists() for rank in range(2)):
        time.sleep(0.02)
    alone.kill()
    alone.wait()
    deadline = time.monotonic() + 10
    while survivors(rundir) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert survivors(rundir) == []
