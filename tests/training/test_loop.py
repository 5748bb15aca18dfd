"""The training loop: a NaN updates nothing, and damaged checkpoints are never used."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from erulab.data.rows import Benchmark
from erulab.errors import IntegrityFault, NumericFault
from erulab.models.loaded import LoadedModel
from erulab.options import Precision
from erulab.ranks import Ranks
from erulab.training.checkpoints import Checkpoints
from erulab.training.local import LocalEngine
from erulab.training.loop import train
from erulab.training.objective import accumulate_together
from erulab.training.unlearning import UnlearningObjective
from tests.cases import Case
from tests.training.conftest import Unlearning

CASE = Case("npo", "reference")


class WithNaN:
    """An unlearning whose loss is NaN at one step."""

    def __init__(self, objective: UnlearningObjective, step: int, only: tuple[str, ...] = ()) -> None:
        """`only`: rows of the one micro-batch whose loss is NaN; empty: of all."""
        self._objective, self._nan_step, self._step, self._only = objective, step, 0, only

    def micro_batches(self, step: int) -> Sequence[Any]:
        return self._objective.micro_batches(step)

    def start_step(self, step: int, total: int) -> None:
        self._step = step
        self._objective.start_step(step, total)

    def accumulate(self, engine: Any, micros: Sequence[Any]) -> dict[str, torch.Tensor]:
        return accumulate_together(engine, micros, self.micro_step)

    @contextmanager
    def micro_step(self, forward: Any, micro: Any) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        with self._objective.micro_step(forward, micro) as (loss, sums):
            factor = float("nan") if self._step == self._nan_step and self._only in ((), micro.batch.row_ids) else 1.0
            yield loss * factor, {name: value * factor for name, value in sums.items()}

    def end_step(self, sums: dict[str, float]) -> dict[str, float]:
        return self._objective.end_step(sums)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self._objective.state_dict()


def test_a_nan_stops_the_loop_before_the_update(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    """FAULTS 16."""
    policy, objective, loop, subject = Unlearning(CASE, world, loaded).build(tmp_path)
    engine = LocalEngine(policy, weight_decay=0.0, clip=1.0, precision=Precision.fp32)
    before: dict[str, torch.Tensor] = {}
    with pytest.raises(NumericFault, match="loss is nan at step 2"):
        for _ in train(engine, WithNaN(objective, 2), loop, Ranks()):  # type: ignore[arg-type]
            before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    after = subject.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_nan_is_reported_with_its_rows_and_the_checkpoint_before_it(
    world: Benchmark, loaded: LoadedModel, tmp_path: Path
) -> None:
    """FAULTS 16. Only the second micro-batch is faulty, so the rows of the first are not named."""
    policy, objective, loop, _ = Unlearning(CASE, world, loaded, micro_batch=4).build(tmp_path)
    engine = LocalEngine(policy, weight_decay=0.0, clip=1.0, precision=Precision.fp32)
    checkpoints = Checkpoints(tmp_path / "checkpoints", {"key": 1}, Ranks())
    faulty = objective.micro_batches(2)[1]
    spoiled = WithNaN(objective, 2, only=faulty.batch.row_ids)
    with pytest.raises(NumericFault) as raised:
        for _ in train(engine, spoiled, dataclasses.replace(loop, save_every=2), Ranks(), checkpoints):  # type: ignore[arg-type]
            pass
    rows = faulty.batch.row_ids
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    newest = tmp_path / "checkpoints" / "step-00000002"
    assert str(raised.value) == (
        f"loss is nan at step 2 in rows {', '.join(rows[:3])}{more}; the last good checkpoint is {newest}; "
        "try a smaller trainer.lr or target.lr"
    )
    assert newest.is_dir()


def saved(world: Benchmark, loaded: LoadedModel, folder: Path) -> tuple[Any, Any, Checkpoints]:
    """An engine and objective with checkpoints after steps 2 and 4."""
    policy, objective, loop, _ = Unlearning(CASE, world, loaded).build(folder)
    engine = LocalEngine(policy, weight_decay=0.0, clip=1.0, precision=Precision.fp32)
    checkpoints = Checkpoints(folder / "checkpoints", {"method": {"name": "npo"}}, Ranks())
    for step, _ in train(engine, objective, loop, Ranks()):
        if step in (1, 3):
            checkpoints.save(step + 1, engine, objective)
    return engine, objective, checkpoints


def test_a_flipped_bit_falls_back_to_the_checkpoint_before(
    world: Benchmark, loaded: LoadedModel, tmp_path: Path
) -> None:
    """FAULTS 19."""
    engine, objective, checkpoints = saved(world, loaded, tmp_path)
    newest = tmp_path / "checkpoints" / "step-00000004" / "engine" / "state.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    assert checkpoints.restore(engine, objective) == 2


def test_unusable_checkpoints_are_an_error_and_no_restart_from_step_zero(
    world: Benchmark, loaded: LoadedModel, tmp_path: Path
) -> None:
    """FAULTS 19."""
    engine, objective, checkpoints = saved(world, loaded, tmp_path)
    for manifest in (tmp_path / "checkpoints").glob("*/manifest.json"):
        manifest.unlink()
    with pytest.raises(IntegrityFault, match="manifest is missing"):
        checkpoints.restore(engine, objective)


def test_a_checkpoint_of_another_training_is_refused_with_what_differs(
    world: Benchmark, loaded: LoadedModel, tmp_path: Path
) -> None:
    """FAULTS 20: it was copied into this training's folder."""
    engine, objective, _ = saved(world, loaded, tmp_path)
    other = Checkpoints(tmp_path / "checkpoints", {"method": {"name": "simnpo"}}, Ranks())
    with pytest.raises(IntegrityFault, match=r"belongs to another training: method\.name npo, not simnpo"):
        other.restore(engine, objective)


def test_removed_checkpoints_are_an_error_too(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    """FAULTS 19: training never starts from step 0 without a word."""
    engine, objective, checkpoints = saved(world, loaded, tmp_path)
    for folder in (tmp_path / "checkpoints").glob("step-*"):
        shutil.rmtree(folder)
    with pytest.raises(IntegrityFault, match="its checkpoints were removed"):
        checkpoints.restore(engine, objective)


def test_every_bit_of_a_manifest_counts(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    """FAULTS 19: a flipped bit makes training fall back to the checkpoint before, whatever the bit."""
    engine, objective, checkpoints = saved(world, loaded, tmp_path)
    newest = tmp_path / "checkpoints" / "step-00000004" / "manifest.json"
    intact = newest.read_bytes()
    assert checkpoints.restore(engine, objective) == 4
    steps = set()
    for bit in range(0, 8 * len(intact), 37):  # all bits of a byte, over the file
        content = bytearray(intact)
        content[bit // 8] ^= 1 << bit % 8
        newest.write_bytes(content)
        if json_of(content) != json_of(intact):  # otherwise white space took the place of white space
            steps.add(checkpoints.restore(engine, objective))
    assert steps == {2}


def json_of(content: bytes | bytearray) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


class FullDisk(LocalEngine):
    """An engine whose state does not fit on the disk."""

    def save(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_bytes(b"0" * 1000)
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_the_last_checkpoint_and_leaves_no_half_one(
    world: Benchmark, loaded: LoadedModel, tmp_path: Path
) -> None:
    """FAULTS 18."""
    engine, objective, checkpoints = saved(world, loaded, tmp_path)
    full = FullDisk(engine.policy, weight_decay=0.0, clip=1.0, precision=Precision.fp32)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(6, full, objective)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "newest.json",
        "step-00000002",
        "step-00000004",
    }
    assert checkpoints.restore(engine, objective) == 4
