"""The launcher gpu_pool: jobs at once, each with GPUs of its own; a failure ends one job, Ctrl-C ends all.

Jobs are real commands with a stand-in for erulab.worker; GPUs are what a fake nvidia-smi lists.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from erulab.config.compose import load_config
from erulab.errors import ConfigError, ErulabError
from erulab.launching import pool
from erulab.launching.machine import GPU
from erulab.launching.sweep import Task
from tests.commands import Answer

POOL = ("-m", "hydra/launcher=gpu_pool", "method=npo", "attack=none", "engine=local", "stages=[target]")
# Each leaves when it worked and with which GPUs; beta 0.2 fails.
BODY = """
started = time.time()
time.sleep(1)
beta = next(line.split()[1] for line in (folder / "run.yaml").read_text().splitlines() if line.startswith("  beta:"))
record = {"beta": beta, "started": started, "ended": time.time(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}
pathlib.Path(f"job-{beta}-{os.getpid()}.json").write_text(json.dumps(record))
end(3, "no rows") if beta == "0.2" else end(0)
"""
STAND_IN = (
    "import sys; from erulab import run; from erulab.launching import job; job.WORKER = {!r}; sys.exit(run.cli())"
)


@pytest.fixture
def jobs_run(worker: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the command of every job use a stand-in worker with the given body."""
    typed = Task.command.fget  # type: ignore[attr-defined]

    def use(body: str) -> None:
        module = worker(body)
        monkeypatch.setattr(
            Task, "command", property(lambda task: [sys.executable, "-c", STAND_IN.format(module), *typed(task)[3:]])
        )

    return use


@pytest.fixture
def three_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    smi = folder / "nvidia-smi"
    smi.write_text('#!/bin/sh\nfor i in 0 1 2; do echo "$i, GPU-$i$i, 9.0, H100"; done\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def records(here: Path) -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in here.glob("job-*.json")]


def works(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def overlap(one: dict[str, object], two: dict[str, object]) -> bool:
    return one["started"] < two["ended"] and two["started"] < one["ended"]  # type: ignore[operator]


def test_jobs_find_the_users_own_conf_folder(
    command: Callable[..., Answer], jobs_run: Callable[[str], None], here: Path
) -> None:
    (here / "my_conf" / "method").mkdir(parents=True)
    (here / "my_conf" / "method" / "gentle.yaml").write_text("defaults: [npo, _self_]\nbeta: 0.05\n")
    jobs_run(BODY)
    assert command("--config-dir", "my_conf", *POOL, "method=gentle").code == 0
    assert [record["beta"] for record in records(here)] == ["0.05"]


def test_jobs_run_at_once_and_fail_alone(
    command: Callable[..., Answer], jobs_run: Callable[[str], None], here: Path
) -> None:
    jobs_run(BODY)
    typed = (*POOL, "hydra.launcher.slots=2", "method.beta=0.1,0.2,0.3,0.30")
    first = command(*typed)
    assert first.code == 3
    ran = records(here)
    assert sorted(str(r["beta"]) for r in ran) == ["0.1", "0.2", "0.3"]
    by_beta = {r["beta"]: r for r in ran}
    assert overlap(by_beta["0.1"], by_beta["0.2"])
    assert not all(overlap(by_beta["0.3"], by_beta[beta]) for beta in ("0.1", "0.2"))  # it waited for a slot
    (folder,) = (here / "outputs" / "sweeps").iterdir()
    rows = json.loads((folder / "sweep.json").read_text())["jobs"]
    assert [row["code"] for row in rows] == [0, 3, 0, 0]
    assert all(row["seconds"] > 1 for row in rows)
    assert "code 3: no rows" in first.out and "job2.log" in first.out
    table = first.out[first.out.index("overrides") :]
    assert "failed" in table and table.count("done") == 2
    # Each has its folder, as a run typed alone has, and the sweep's group.
    groups = {load_config(here / row["folder"] / "run.yaml").tracker.group for row in rows}
    assert groups == {folder.name}
    # The same command does only what is missing.
    second = command(*typed)
    assert second.code == 3
    assert len(records(here)) == 4
    assert second.out.count("finished before: ") == 2


def test_each_job_has_gpus_of_its_own(
    command: Callable[..., Answer], jobs_run: Callable[[str], None], here: Path, three_gpus: None
) -> None:
    jobs_run(BODY)
    answer = command(*POOL, "method.beta=0.1,0.3,0.4,0.5", "hydra.launcher.slots=2")
    assert answer.code == 0, answer.err
    ran = records(here)
    assert {r["gpus"] for r in ran} == {"GPU-00", "GPU-11"}
    for one in ran:
        assert not [two for two in ran if two is not one and two["gpus"] == one["gpus"] and overlap(one, two)]
    assert any(overlap(one, two) for one in ran for two in ran if one is not two)
    assert "starts on GPU GPU-11" in answer.out


def test_a_job_is_checked_with_the_gpus_it_will_have(
    command: Callable[..., Answer], jobs_run: Callable[[str], None], three_gpus: None, here: Path
) -> None:
    jobs_run(BODY)
    answer = command(*POOL[:-1], "engine=zero2", "engine.processes=1,2")
    assert answer.code == 4
    assert "job 1" in answer.err and "engine.processes=2" in answer.err
    assert not (here / "outputs").exists()


@pytest.mark.parametrize(
    ("gpus", "per_job", "slots", "devices"),
    [
        (0, 1, None, [""]),
        (0, 1, 3, ["", "", ""]),
        (3, 1, None, ["0", "1", "2"]),
        (3, 2, None, ["0,1"]),
        (4, 2, None, ["0,1", "2,3"]),
        (4, 1, 2, ["0", "1"]),
    ],
)
def test_slots(gpus: int, per_job: int, slots: int | None, devices: list[str]) -> None:
    made = pool.make_slots([GPU("H100", device=str(i)) for i in range(gpus)], per_job, slots)
    assert [slot.devices for slot in made] == devices


@pytest.mark.parametrize(
    ("gpus", "per_job", "slots", "said"),
    [
        (0, 1, 0, r"hydra\.launcher\.slots must be > 0, got 0"),
        (2, 0, None, r"hydra\.launcher\.gpus_per_job must be > 0, got 0"),
        (2, 4, None, r"gpus_per_job=4, but there are 2 GPUs; try hydra\.launcher\.gpus_per_job=2"),
        (4, 2, 3, r"slots=3 with gpus_per_job=2 needs 6 GPUs, there are 4; try hydra\.launcher\.slots=2"),
    ],
)
def test_slots_that_cannot_be_had(gpus: int, per_job: int, slots: int | None, said: str) -> None:
    with pytest.raises(ErulabError, match=said):
        pool.make_slots([GPU("H100")] * gpus, per_job, slots)


def test_bad_jobs_stop_the_pool_before_it_starts(command: Callable[..., Answer], here: Path) -> None:
    negative = command(*POOL, "method.beta=0.1,-1")
    assert (negative.code, "job 1" in negative.err) == (ConfigError.code, True)
    hosts = command(*POOL[:-1], "engine=zero2", "engine.nodes=2", "engine.rendezvous=a:1", "seed=0,1")
    assert hosts.code == ConfigError.code and "engine.nodes=1" in hosts.err
    unknown = command(*POOL, "seed=0,1", "hydra.launcher.slot=2")
    assert unknown.code == ConfigError.code and len(unknown.err.splitlines()) == 1
    assert not (here / "outputs").exists()


@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_stops_all(
    signals: int, command: Callable[..., Answer], jobs_run: Callable[[str], None], here: Path
) -> None:
    jobs_run("""
    came = []
    signal.signal(signal.SIGTERM, lambda n, _: came.append(n))
    pathlib.Path(f"pid-{os.getpid()}").touch()
    while not came:
        time.sleep(.02)
    while pathlib.Path("stubborn").exists():
        time.sleep(.1)
    end(75, "stopped after step 3")
    """)
    if signals == 2:
        (here / "stubborn").touch()

    def press() -> None:
        while len(list(here.glob("pid-*"))) < 2:
            time.sleep(0.05)
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    threading.Thread(target=press, daemon=True).start()
    answer = command(*POOL, "hydra.launcher.slots=2", "method.beta=0.1,0.3,0.4")
    assert answer.code == 75
    (folder,) = (here / "outputs" / "sweeps").iterdir()
    codes = [row["code"] for row in json.loads((folder / "sweep.json").read_text())["jobs"]]
    assert codes == [75, 75, None]
    assert "not run" in answer.out
    assert not any(works(int(file.name.removeprefix("pid-"))) for file in here.glob("pid-*"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
