"""Commands as a user types them: a run on two processes, on two hosts, and continued after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from erulab.config.compose import compose_config
from erulab.models.loading import save_folder
from erulab.registry import datasets, models
from erulab.rundir import RunDir
from tests.pipeline.conftest import Finished, Runner, small

ROOT = Path(__file__).parents[2]
STEPS = 200


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "erulab.run", *[o for o in small(overrides) if o != "engine=local"]]


def only_run(output: Path) -> RunDir:
    (folder,) = (output / "fictitious").iterdir()
    return RunDir(folder)


def check_scores(rundir: RunDir, first: Finished) -> None:
    scores, wanted = json.loads(rundir.scores_json.read_text()), first.read("scores.json")
    for model, figures in wanted.items():
        for name, value in figures.items():
            if name.startswith("cost/"):  # depends on the machine and on the padding of batches
                continue
            # Generated text may differ at near ties; a Kolmogorov-Smirnov p-value and an interval jump with them.
            if not name.endswith(("rouge", "exact_match", "utility", "quality", "_low", "_high", "_note")):
                assert scores[model][name] == pytest.approx(value, abs=1e-3), (model, name)


def test_two_processes_give_the_scores_of_one(first: Finished, tmp_path: Path) -> None:
    """Under ZeRO-2 on two CPU processes everything is trained and scored anew, with the same scores."""
    done = subprocess.run(
        command(f"output={tmp_path}", "engine=zero2", "engine.processes=2", "attack=[relearn,quantize]"),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rundir = only_run(tmp_path)
    check_scores(rundir, first)
    # Costs are sums over both processes. They differ by padding and by the adversary's prompts, which both run.
    costs, one = json.loads(rundir.stages_json.read_text()), first.read("stages.json")
    for stage in ("target", "oracle", "evaluate"):
        for name in ("tokens", "flops_forward"):
            assert costs[stage][name] == pytest.approx(one[stage][name], rel=0.15), (stage, name)
    mine, its = (
        [json.loads(line)["cost/tokens"] for line in folder.metrics_jsonl.read_text().splitlines()]
        for folder in (rundir, first.rundir)
    )
    assert mine[-1] == costs["unlearn"]["tokens"]
    assert mine[-1] - mine[0] == pytest.approx(its[-1] - its[0], rel=0.15)
    attacked = {(r["attack"], str(r["setting"]), r["metric"]): r for r in json.loads(rundir.attacks_json.read_text())}
    expected = {(r["attack"], str(r["setting"]), r["metric"]): r for r in first.read("attacks.json")}
    # Other tests may have added attacks to the first run.
    assert attacked.keys() <= expected.keys() and {name for name, *_ in attacked} == {"relearn", "quantize"}
    for key, row in attacked.items():
        assert row["attacked_unlearned"] == pytest.approx(expected[key]["attacked_unlearned"], abs=5e-3), key


FROM_FOLDER = (
    "model=hf",
    "method=npo",
    "reward=reference",
    "adversary=rfa",
    "method.retain=kl",
    "stages=[target,unlearn]",
    "attack=none",
    "target.epochs=2",
    "target.lr=1e-3",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base model."""
    folder = tmp_path_factory.mktemp("base")
    tiny = compose_config(small(()))
    save_folder(models.build(tiny.model).load(datasets.build(tiny.dataset).load(0), 0), folder)
    return folder


@pytest.fixture(scope="module")
def local(run: Runner, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The run from the folder in one process, that those under zero3 are compared with."""
    finished = run(*FROM_FOLDER, f"model.path={base}", folder=tmp_path_factory.mktemp("local"))
    assert finished.code == 0
    return finished


@pytest.mark.parametrize("processes", [1, 2])
def test_zero3_from_a_folder_gives_the_model_of_local(
    processes: int, local: Finished, base: Path, tmp_path: Path
) -> None:
    """Base model, target and frozen reference are read sharded; both products are written shard by shard."""
    options = (*FROM_FOLDER, f"model.path={base}", f"output={tmp_path}")
    done = subprocess.run(
        command(*options, "engine=zero3_offload", f"engine.processes={processes}"),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    sharded = only_run(tmp_path)
    one, two = (
        [json.loads(line) for line in rundir.metrics_jsonl.read_text().splitlines()]
        for rundir in (local.rundir, sharded)
    )
    assert [values["step"] for values in two] == [0, 1, 2, 3]
    for values, wanted in zip(two, one, strict=True):
        for name in ("forget_loss", "retain_loss", "grad_norm"):
            assert values[name] == pytest.approx(wanted[name], rel=1e-3, abs=1e-3), name
    first, second = (load_file(rundir.model / "model.safetensors") for rundir in (local.rundir, sharded))
    assert first.keys() == second.keys()
    # Where a gradient is only rounding error, Adam takes a full step in either direction, so means are compared.
    assert all((value - second[name]).abs().mean() < 1e-4 for name, value in first.items())


def test_two_hosts_give_the_scores_of_one(first: Finished, tmp_path: Path) -> None:
    """Two commands with one process each find each other, as on two machines with one file system."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    typed = command(
        f"output={tmp_path}",
        "engine=zero2",
        "engine.nodes=2",
        "engine.processes=1",
        f"engine.rendezvous={address}",
        "attack=none",
    )
    hosts = [
        subprocess.Popen(typed, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    ]
    said = [host.communicate()[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], said
    check_scores(only_run(tmp_path), first)
    # The cache entry records the processes of both hosts.
    (entry,) = (json.loads(e.read_text()) for e in tmp_path.glob(".cache/unlearned/*/entry.json"))
    assert entry["made_by"]["processes"] == 2


def test_a_killed_run_continues_to_the_same_weights(run: Runner, first: Finished, tmp_path: Path) -> None:
    """After SIGKILL in the middle of unlearning the same command ends with the weights of an uninterrupted run."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    for output in (straight, broken):  # target and oracle are there
        shutil.copytree(first.rundir.path.parents[1] / ".cache" / "learned", output / ".cache" / "learned")
    options = ("attack=none", f"trainer.steps={STEPS}", "trainer.save_every=10")
    assert run(*options, folder=straight).code == 0
    process = subprocess.Popen(
        command(f"output={broken}", *options), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    )
    checkpoints = broken / ".cache" / "unlearned"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*.partial/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    rundir = only_run(broken)
    for line in subprocess.run(["pgrep", "-f", str(rundir.path)], capture_output=True, text=True).stdout.split():
        os.kill(int(line), signal.SIGKILL)
    assert process.wait() == 75
    assert not (rundir.model / "model.safetensors").exists()
    assert run(*options, folder=broken).code == 0
    one, two = (load_file(only_run(o).model / "model.safetensors") for o in (straight, broken))
    assert all(torch.equal(one[name], two[name]) for name in one)
    steps = [json.loads(line)["step"] for line in rundir.metrics_jsonl.read_text().splitlines()]
    assert steps == list(range(STEPS))
    # Costs of steps that were lost are not counted twice; those of kept steps are counted.
    costs, resumed = (json.loads(only_run(o).stages_json.read_text())["unlearn"] for o in (straight, broken))
    for name in ("tokens", "supervised_tokens", "flops_forward", "flops_backward", "flops_adversary", "flops"):
        assert resumed[name] == costs[name] > 0, name
