"""DeepSpeed over two CPU processes gives what one process gives: losses, metrics and weights."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from erulab.data.rows import Benchmark
from erulab.models.loaded import LoadedModel
from tests.cases import Case
from tests.training.conftest import Unlearning

RFA = Case("eru", "elastic", "rfa", adversary_options={"n": 4, "warmup": 0.0, "every": 2})
PGD = Case("eru", "elastic", "latent_pgd", reward_options={"z": "batch"}, adversary_options={"steps": 2})
KL = Case("kl")
STEPS = 6


@dataclass(frozen=True)
class Run:
    """One unlearning under ZeRO; `parts` are the steps it is cut into, with a checkpoint between."""

    case: Case
    stage: int
    micro_batch: int
    parts: tuple[tuple[int, int], ...] = ((0, STEPS),)

    @property
    def name(self) -> str:
        return f"zero{self.stage}-{self.case.name}-{self.micro_batch}-{len(self.parts)}"


RUNS = (
    *(Run(RFA, stage, 2) for stage in range(4)),
    Run(PGD, 2, 4),
    Run(PGD, 3, 4),
    Run(KL, 3, 4),
    Run(RFA, 2, 4, ((0, 3), (3, STEPS))),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote: one launch for all runs, since starting DeepSpeed takes longer than they do."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed (it is for Linux only)")
    folder = tmp_path_factory.mktemp("zero")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [*command, "-m", "tests.training.zero_ranks", str(folder)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return folder


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_same_curve_and_weights_as_one_process(
    run: Run, folder: Path, world: Benchmark, loaded: LoadedModel, tmp_path: Path
) -> None:
    curve = json.loads((folder / f"{run.name}.json").read_text())
    expected, weights = Unlearning(run.case, world, loaded).run(tmp_path)
    assert len(curve) == len(expected) == STEPS
    for values, wanted in zip(curve, expected, strict=True):
        assert values.keys() == wanted.keys()
        for name in wanted.keys() - {"rows_per_second", "adversary/gain"}:
            assert values[name] == pytest.approx(wanted[name], rel=1e-4, abs=1e-4), name
    trained = load_file(folder / f"{run.name}.safetensors")
    for name, value in weights.items():
        assert torch.allclose(trained[name], value, atol=1e-4), name
