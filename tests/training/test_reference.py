"""Reference tables: equal to the live model's NLL, and kept by exactly these rows and weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erulab.data.rows import Benchmark
from erulab.models.loaded import LoadedModel
from erulab.ranks import Ranks
from erulab.tokens.batch import collate
from erulab.tokens.encoder import Encoder
from erulab.training.reference import ReferenceTable, reference_table


def table(loaded: LoadedModel, world: Benchmark, folder: Path, key: str = "weights", last: int = 12) -> ReferenceTable:
    rows = Encoder(loaded.chat, None, folder).encode(world.forget[:last])
    return reference_table(
        loaded.policy, key, rows, rows[:3], folder=folder, pad_id=loaded.pad_id, batch_tokens=64, ranks=Ranks()
    )


def test_the_table_equals_the_live_models_nll(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    cached = table(loaded, world, tmp_path)
    with torch.no_grad():
        live = [
            loaded.policy.row_nll(collate([row], loaded.pad_id)).item()
            for row in Encoder(loaded.chat, None, tmp_path).encode(world.forget[:12])
        ]
    assert cached.forget.tolist() == pytest.approx(live, abs=1e-4)
    assert cached.paired.tolist() == pytest.approx(live[:3], abs=1e-4)


def test_the_table_is_read_from_disk_the_second_time(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    first = table(loaded, world, tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    assert torch.equal(table(loaded, world, tmp_path).forget, first.forget)
    assert [f.stat().st_mtime_ns for f in tmp_path.iterdir()] == [written]


def test_other_weights_or_rows_make_another_table(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    table(loaded, world, tmp_path)
    table(loaded, world, tmp_path, key="other weights")
    table(loaded, world, tmp_path, last=11)
    assert len(list(tmp_path.iterdir())) == 3
