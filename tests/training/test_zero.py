"""DeepSpeed over CPU processes gives the losses, metrics and weights of one process, also across a checkpoint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from erulab.data.rows import Benchmark
from erulab.models.loaded import LoadedModel
from erulab.options import Offload
from erulab.ranks import Ranks
from erulab.training.loop import COSTS
from tests.training.zero_cases import CUT, CUTS, GOES_ON, LOCAL, PDU, RFA, RUNS, WIDE, ZERO2, Run, train_part

Curve = list[dict[str, float]]


Expected = tuple[Curve, dict[str, torch.Tensor], dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def local(loaded: LoadedModel, world: Benchmark, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Run], Expected]:
    """Curve, weights, and state of reward and adversary, of a run on one process with one micro-batch per step."""

    known: dict[str, Expected] = {}

    def once(run: Run) -> Expected:
        run = dataclasses.replace(run, stage=0, micro_batch=8, offload=Offload.none, checkpointing=False)
        if run.name not in known:
            folder = tmp_path_factory.mktemp("local")
            curve, engine, objective = train_part(run, LOCAL, world, loaded, Ranks(), folder)
            known[run.name] = curve, dict(engine.weights()), objective.state_dict()
        return known[run.name]

    return once


def assert_same(folder: Path, name: str, expected: Expected, first: int = 0) -> None:
    curve: Curve = json.loads((folder / f"{name}.json").read_text())
    wanted, weights, _ = expected
    assert_same_curve(curve, wanted[first:])
    trained = load_file(folder / f"{name}.safetensors")
    assert trained.keys() == weights.keys()
    for key, value in weights.items():
        assert torch.allclose(trained[key], value, atol=1e-4), key


def assert_same_curve(curve: Curve, wanted: Curve) -> None:
    assert len(curve) == len(wanted)
    for values, one in zip(curve, wanted, strict=True):
        assert values.keys() == one.keys()
        for key in one.keys() - {"rows_per_second", "adversary/gain", *COSTS}:  # COSTS depend on the layout of rows
            assert values[key] == pytest.approx(one[key], rel=1e-4, abs=1e-4), key


def of_run(run: Run) -> str:
    return run.name


@pytest.mark.parametrize("run", RUNS, ids=of_run)
def test_same_curve_and_weights_as_one_process(run: Run, ranks_folder: Path, local: Callable[[Run], Expected]) -> None:
    expected = local(run)
    assert_same(ranks_folder, f"whole-{run.name}", expected)
    if run.clip < 1:
        assert min(values["grad_norm"] for values in expected[0]) > run.clip  # clipping takes effect in every step


@pytest.mark.parametrize("run", WIDE, ids=of_run)
def test_four_processes_too(run: Run, ranks_folder: Path, local: Callable[[Run], Expected]) -> None:
    assert_same(ranks_folder, f"wide-{run.name}", local(run))


@pytest.mark.parametrize(
    ("processes", "run"),
    [pytest.param(n, run, id=f"{n}-{run.name}") for n, runs in GOES_ON.items() for run in runs],
)
def test_a_stopped_run_continues_with_other_numbers_of_processes(
    processes: int, run: Run, ranks_folder: Path, local: Callable[[Run], Expected]
) -> None:
    assert_same(ranks_folder, f"{run.name}-{processes}", local(run), CUT)


@pytest.mark.parametrize("run", CUTS, ids=of_run)
def test_a_run_continued_with_as_many_processes_has_the_same_bits(run: Run, ranks_folder: Path) -> None:
    straight, resumed = (json.loads((ranks_folder / f"{name}.json").read_text()) for name in names(run))
    for values in (*straight, *resumed):
        del values["rows_per_second"]
    assert resumed == straight[CUT:]
    first, second = (load_file(ranks_folder / f"{name}.safetensors") for name in names(run))
    assert all(torch.equal(first[key], second[key]) for key in first)


def names(run: Run) -> tuple[str, str]:
    return f"whole-{run.name}", f"{run.name}-2"


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_run_of_the_local_engine_continues_under_zero(
    processes: int, ranks_folder: Path, local: Callable[[Run], Expected]
) -> None:
    assert_same(ranks_folder, f"local-{processes}", local(ZERO2), CUT)


@pytest.mark.parametrize("run", CUTS, ids=of_run)
def test_a_run_under_zero_continues_in_the_local_engine(
    run: Run,
    ranks_folder: Path,
    world: Benchmark,
    loaded: LoadedModel,
    tmp_path: Path,
    local: Callable[[Run], Expected],
) -> None:
    kept = ranks_folder / "checkpoints" / run.name
    curve, engine, _ = train_part(run, LOCAL, world, loaded, Ranks(), tmp_path, CUT, checkpoints=kept)
    wanted, weights, _ = local(run)
    assert_same_curve(curve, wanted[CUT:])
    assert all(torch.allclose(value, weights[key], atol=1e-4) for key, value in engine.weights())


@pytest.mark.parametrize("run", RUNS, ids=of_run)
def test_directions_and_statistics_are_equal_on_all_ranks(
    run: Run, ranks_folder: Path, local: Callable[[Run], Expected]
) -> None:
    """RFA's directions, statistics of the elastic reward and pdu's multiplier have equal bits on both ranks, close to
    one process.
    """
    first, second = (load_file(ranks_folder / f"whole-{run.name}.rank{rank}.safetensors") for rank in (0, 1))
    wanted = local(run)[2]
    assert first.keys() == second.keys() == wanted.keys()
    if run.case is RFA:
        assert {"adversary.directions", "reward.mean"} <= wanted.keys()
    if run.case is PDU:
        assert wanted["method.multiplier"] != 2.0, "it has moved"
    for key, value in wanted.items():
        assert torch.equal(first[key], second[key]), key
        assert torch.allclose(first[key], value, atol=1e-4), key
