"""One run on two hosts: two commands on this machine, stand-ins for erulab.worker under the real torchrun."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from erulab.config.compose import CONF, compose_config, load_config, save_config
from erulab.errors import ConfigError, EnvironmentFault
from erulab.launching import hosts
from erulab.launching.hosts import HostStatus, Meeting, join_run
from erulab.launching.job import plan_job, run_job
from erulab.rundir import InUse, RunDir

# As `python -m erulab.run` goes on once the command line is composed.
TYPED = """
import sys
from erulab.config.compose import compose_config
from erulab.launching import job, torchrun, workers
from erulab.launching.job import plan_job, run_job
from erulab.errors import ErulabError
job.WORKER, workers.SURVIVE_SECONDS, torchrun.MEET_SECONDS = sys.argv[1], 2, int(sys.argv[2])
try:
    ended = run_job(plan_job(compose_config(sys.argv[3:])))
    if ended.stopped:
        print("a sweep would end here")
    sys.exit(ended.code)
except ErulabError as error:
    print(error, file=sys.stderr)
    sys.exit(error.code)
"""
DEAF = """
(folder / f"pid{rank}").write_text(str(os.getpid()))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
time.sleep(120)
"""


@dataclass
class Typed:
    """A command on one host; `ranks` are found by its process tree."""

    process: subprocess.Popen[str]

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def tree(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


Type = Callable[..., Typed]


@pytest.fixture
def address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def on_host(here: Path, address: str) -> Iterator[Type]:
    """Returns a function that types the command of a run on two hosts on one of them."""
    typed: list[Typed] = []

    def start(module: str, *overrides: str, cwd: Path = here, meet: int = 60) -> Typed:
        run = ["engine=zero2", "engine.nodes=2", "engine.processes=1", f"engine.rendezvous={address}", *overrides]
        command = [sys.executable, "-c", TYPED, module, str(meet), *run]
        process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        typed.append(Typed(process))
        return typed[-1]

    yield start
    for one in typed:
        if one.process.poll() is None:
            for process in [*one.tree(), psutil.Process(one.process.pid)]:
                process.kill()
            one.process.wait()


def first_run_folder(here: Path, seconds: float = 30) -> RunDir:
    deadline = time.monotonic() + seconds
    while not list(here.glob("outputs/fictitious/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (folder,) = here.glob("outputs/fictitious/*")
    return RunDir(folder)


def wait_for(*files: Path) -> None:
    deadline = time.monotonic() + 30
    while not all(file.is_file() and file.read_text() for file in files) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(file.is_file() for file in files)


def left_by(rundir: RunDir) -> set[str]:
    return {file.name for file in rundir.path.iterdir()}


def test_the_same_command_on_both_is_one_run(here: Path, worker: Callable[[str], str], on_host: Type) -> None:
    module = worker("""
    print("rank", rank, "of", os.environ["WORLD_SIZE"], "device", os.environ["LOCAL_RANK"], flush=True)
    (folder / f"here{rank}").write_text("x")
    while not (folder / "go").exists():
        time.sleep(.05)
    if rank == 0:
        end(0, "done")
    """)
    both = [on_host(module), on_host(module)]
    rundir = first_run_folder(here)
    wait_for(rundir.path / "here0", rundir.path / "here1")
    third = on_host(module).end()
    assert third[0] == 4 and "in use by all 2 hosts" in third[2]
    other = on_host(module, "engine=local", "engine.nodes=1").end()
    assert other[0] == 4 and "is in use by process" in other[2]
    (rundir.path / "go").touch()
    ended = [host.end() for host in both]
    assert [code for code, *_ in ended] == [0, 0]
    # Rank 0's output on its host; one line on the other.
    shown, quiet = sorted((out for _, out, _ in ended), key=len, reverse=True)
    assert "rank 0 of 2 device 0" in shown and "run folder:" in shown and "rank 1" not in shown
    assert quiet.startswith("host ") and len(quiet.splitlines()) == 1
    assert rundir.rank_log(1).read_text() == "rank 1 of 2 device 0\n"
    assert load_config(rundir.run_yaml).engine.nodes == 2
    assert left_by(rundir) == {
        "run.yaml",
        "env.json",
        "exit.json",
        "rank0.log",
        "rank1.log",
        "here0",
        "here1",
        "go",
    }


def test_a_killed_rank_ends_the_other_host_too(here: Path, worker: Callable[[str], str], on_host: Type) -> None:
    """FAULTS 22."""
    module = worker(DEAF)
    both = [on_host(module), on_host(module)]
    rundir = first_run_folder(here)
    wait_for(rundir.path / "pid0", rundir.path / "pid1")
    everyone = [process for host in both for process in host.tree()]
    started = time.monotonic()
    os.kill(int((rundir.path / "pid1").read_text()), signal.SIGKILL)
    ended = [host.end() for host in both]
    assert time.monotonic() - started < 15
    for code, _, err in ended:
        assert code == 75
        assert "rank 1 was killed by signal 9" in err
    assert rundir.read_json(rundir.exit_json)["rank"] == 1
    assert not any(process.is_running() for process in everyone)


def test_a_crash_speaks_on_both_hosts(here: Path, worker: Callable[[str], str], on_host: Type) -> None:
    module = worker("""
    if rank == 1:
        raise RuntimeError("boom")
    time.sleep(120)
    """)
    both = [on_host(module), on_host(module)]
    for code, out, err in [host.end() for host in both]:
        assert code == 1
        assert "RuntimeError: boom" in err and "rank1.log" in err
        assert "boom" not in out
    assert not list(first_run_folder(here).path.glob("host*.json"))


def test_a_lost_host_ends_the_run(here: Path, worker: Callable[[str], str], on_host: Type) -> None:
    module = worker(DEAF)
    both = [on_host(module), on_host(module)]
    rundir = first_run_folder(here)
    wait_for(rundir.path / "pid0", rundir.path / "pid1")
    first = rundir.holder()
    assert first is not None
    stays, goes = sorted(both, key=lambda host: host.process.pid != first["pid"])
    for process in [*goes.tree(), psutil.Process(goes.process.pid)]:
        process.kill()
    code, _, err = stays.end()
    assert code == 75
    assert f"host {socket.gethostname()} was lost" in err


def test_a_signal_to_one_host_stops_both(here: Path, worker: Callable[[str], str], on_host: Type) -> None:
    module = worker("""
    came = []
    signal.signal(signal.SIGTERM, lambda n, _: came.append(n))
    (folder / f"pid{rank}").write_text("x")
    while not came:
        time.sleep(.02)
    end(75, "stopped after step 3")
    """)
    both = [on_host(module), on_host(module)]
    rundir = first_run_folder(here)
    wait_for(rundir.path / "pid0", rundir.path / "pid1")
    both[1].process.send_signal(signal.SIGINT)
    for code, out, _ in [host.end() for host in both]:
        assert code == 75
        assert "a sweep would end here" in out
    assert rundir.read_json(rundir.exit_json)["message"] == "stopped after step 3"


def test_hosts_that_do_not_meet(here: Path, worker: Callable[[str], str], on_host: Type) -> None:
    code, _, err = on_host(worker("end(0)"), meet=2).end()
    assert code == 4
    assert "not all 2 hosts met at 127.0.0.1:" in err


def test_a_folder_that_is_not_shared(here: Path, on_host: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders with the same name: the real worker notices once its ranks can communicate."""
    monkeypatch.setenv("PYTHONPATH", str(CONF.parent))
    for name in ("a", "b"):
        (here / name).mkdir()
    for host in [on_host("erulab.worker", "tracker=none", cwd=here / name) for name in ("a", "b")]:
        code, out, err = host.end()
        assert code == 4
        assert "is not the folder of that name" in out + err and "output= and cache= must be" in out + err


MEETING = Meeting(2, "somewhere:29500", "key")


def test_another_run_is_told_that_the_folder_is_in_use(here: Path) -> None:
    rundir = RunDir(here)
    with join_run(rundir, MEETING) as first:
        first.publish(HostStatus())
        for other in (None, Meeting(2, "elsewhere:29500", "key"), Meeting(2, "somewhere:29500", "other key")):
            with pytest.raises(InUse, match=rf"in use by process {os.getpid()}"), join_run(rundir, other):
                pass
        with join_run(rundir, MEETING) as second:
            assert (first.first, second.first, second.name) == (True, False, "host 2 of 2")


def test_an_earlier_host_that_is_still_ending_holds_the_folder(here: Path) -> None:
    rundir = RunDir(here)
    with rundir.locked(host_index=1), pytest.raises(InUse), join_run(rundir, None):
        pass
    with join_run(rundir, None) as host:
        assert host.first


def test_a_host_waits_until_the_first_is_ready(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "READY_SECONDS", 0.3)
    with (
        join_run(RunDir(here), MEETING),
        pytest.raises(EnvironmentFault, match="in use"),
        join_run(RunDir(here), MEETING),
    ):
        pass


def test_another_command_on_the_second_host_is_refused(here: Path) -> None:
    run = ["engine=zero2", "engine.nodes=2", "engine.processes=1", "engine.rendezvous=somewhere:29500"]
    first, second = (plan_job(compose_config([*run, f"attack={attack}"])) for attack in ("relearn", "none"))
    assert first.rundir.path == second.rundir.path
    first.rundir.make()
    with join_run(first.rundir, Meeting(2, "somewhere:29500", first.key)) as host:
        save_config(first.config, first.rundir.run_yaml)
        host.publish(HostStatus())
        with pytest.raises(ConfigError, match=r"other settings of attack .*the same command on each host"):
            run_job(second)


def test_an_unusable_address_is_refused(address: str) -> None:
    """FAULTS 24."""
    hosts.check_address(Meeting(2, address, "key"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(address.split(":")[1])))
        taken.listen()
        with pytest.raises(EnvironmentFault, match=r"the port is in use; try engine\.rendezvous=127\.0\.0\.1:\d+ "):
            hosts.check_address(Meeting(2, address, "key"))
    for name in ("no-such-host.invalid", "a..b", "a" * 64):
        with pytest.raises(EnvironmentFault, match=rf"{name}:1: no host of that name"):
            hosts.check_address(Meeting(2, f"{name}:1", "key"))


def test_no_port_above_the_last_is_proposed() -> None:
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # somebody else has it, then
            taken.bind(("127.0.0.1", 65535))
            taken.listen()
        with pytest.raises(EnvironmentFault, match=r"try engine\.rendezvous=127\.0\.0\.1:65534 "):
            hosts.check_address(Meeting(2, "127.0.0.1:65535", "key"))
