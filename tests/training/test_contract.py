"""The contract of every method, reward and adversary, over the one table of cases."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from erulab.data.rows import Benchmark
from erulab.errors import Interrupted
from erulab.models import packing
from erulab.models.loaded import LoadedModel
from erulab.options import Precision
from erulab.ranks import Ranks
from erulab.training.checkpoints import Checkpoints
from erulab.training.local import LocalEngine
from erulab.training.loop import COSTS, train
from erulab.training.stopping import StopRequest
from tests.cases import CASES, Case
from tests.training.conftest import Unlearning

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def assert_close(first: list[dict[str, float]], second: list[dict[str, float]], tolerance: float = 1e-5) -> None:
    assert [m.keys() for m in first] == [m.keys() for m in second]
    for a, b in zip(first, second, strict=True):
        for name in a.keys() - {"rows_per_second", "adversary/gain", *COSTS}:  # COSTS depend on the layout of rows
            assert a[name] == pytest.approx(b[name], rel=tolerance, abs=tolerance), name


@every_case
def test_learns_and_stays_finite(case: Case, world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    """The forget loss falls on the rows that it trains on, and every metric is a finite number."""
    unlearning = Unlearning(case, world, loaded, steps=12, global_batch=24, micro_batch=24)
    metrics, _ = unlearning.run(tmp_path)
    assert all(math.isfinite(value) for values in metrics for value in values.values())
    assert metrics[-1]["forget_loss"] < metrics[0]["forget_loss"]
    if case.adversary != "none":
        assert "adversary/gain" in metrics[0]


@every_case
def test_accumulation_changes_nothing(case: Case, world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    whole = Unlearning(case, world, loaded)
    assert_close(whole.run(tmp_path)[0], dataclasses.replace(whole, micro_batch=2).run(tmp_path)[0])


@every_case
def test_padding_id_changes_nothing(case: Case, world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    """Masks come from lengths, so the pad token may be any token, the end-of-turn token too."""
    plain = Unlearning(case, world, loaded)
    first, weights = plain.run(tmp_path)
    second, same = dataclasses.replace(plain, pad_id=loaded.chat.stop_ids[0]).run(tmp_path)
    assert_close(first, second)
    assert all(torch.allclose(weights[name], same[name], atol=1e-5) for name in weights)


@every_case
def test_same_seed_same_bits(case: Case, world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    first, weights = Unlearning(case, world, loaded).run(tmp_path / "first")
    torch.rand(5)  # nothing draws from the global generator
    # In another folder: a reference table that lies in the same one would cost nothing.
    second, same = Unlearning(case, world, loaded).run(tmp_path / "second")
    for values in (*first, *second):
        del values["rows_per_second"]
    assert first == second
    assert all(torch.equal(weights[name], same[name]) for name in weights)


@every_case
def test_a_stopped_and_continued_run_equals_an_uninterrupted_one(
    case: Case, world: Benchmark, loaded: LoadedModel, tmp_path: Path
) -> None:
    """A signal comes after step 3, and new objects, as in a new process, train the rest: to the same bits."""
    unlearning = Unlearning(case, world, loaded)
    straight, weights = unlearning.run(tmp_path / "straight")
    checkpoints = Checkpoints(tmp_path / "checkpoints", {"key": 1}, Ranks())

    def attempt(stop_after: int | None) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
        policy, objective, loop, subject = unlearning.build(tmp_path)
        engine = LocalEngine(policy, weight_decay=0.01, clip=1.0, precision=Precision.fp32)
        stop = StopRequest()
        seen = []
        for step, values in train(engine, objective, loop, Ranks(), checkpoints, stop):
            seen.append(values)
            stop.requested = step + 1 == stop_after
        return seen, subject.model.state_dict()

    with pytest.raises(Interrupted):
        attempt(3)
    resumed, same = attempt(None)
    assert len(resumed) == unlearning.steps - 3
    # random_direction has no state to restore, and runs one more forward to find the width of the states.
    costs = COSTS if case.adversary != "random_direction" else COSTS[:1]
    for name in ("loss", *costs):
        assert [m[name] for m in resumed] == [m[name] for m in straight[3:]], name
    assert all(torch.equal(weights[name], same[name]) for name in weights)


@every_case
def test_row_order_inside_a_batch_changes_nothing(
    case: Case, world: Benchmark, loaded: LoadedModel, tmp_path: Path
) -> None:
    """One global batch of all rows gives the same loss and metrics with the data set in reverse order."""
    everything = dict(steps=1, global_batch=60, micro_batch=60)
    if case.adversary == "rfa":
        # It draws prompts by their position in the data set: here it takes all of them.
        case = dataclasses.replace(case, adversary_options={**case.adversary_options, "n": 60})
    backwards = dataclasses.replace(world, forget=world.forget[::-1], retain=world.retain[::-1])
    first, _ = Unlearning(case, world, loaded, **everything).run(tmp_path)
    second, _ = Unlearning(case, backwards, loaded, **everything).run(tmp_path)
    for metrics in (*first, *second):
        metrics.pop("adversary/direction_ratio", None)  # its shuffled halves are drawn by position
    assert_close(first, second)


@every_case
def test_packed_rows_and_a_token_budget_change_nothing(
    case: Case, world: Benchmark, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows without padding, common openings computed once, and other micro-batches give the same curve."""
    padded = Unlearning(case, world, loaded)
    expected, weights = padded.run(tmp_path)
    monkeypatch.setattr(packing, "CALL", -1)
    monkeypatch.setattr(packing, "SHORTEST_SHARED", 2)
    # The gradient of retain=kl or js is 0 at the start: Adam takes full steps along its rounding errors, and curves
    # diverge.
    from_rounding = case.method in ("kl", "jensun")
    steps, tolerance = (2, 1e-3) if from_rounding else (padded.steps, 1e-5)
    assert_close(padded.run(tmp_path)[0][:steps], expected[:steps], tolerance)
    found, same = dataclasses.replace(padded, micro_batch=None, micro_tokens=80).run(tmp_path)
    assert_close(found[:steps], expected[:steps], tolerance)
    if not from_rounding:
        assert all(torch.allclose(weights[name], same[name], atol=1e-4) for name in weights)
