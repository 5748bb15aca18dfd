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


@pytest.mark.parametrize("damage", ["value", "costs", "cut", "empty"])
def test_a_damaged_table_is_made_again(
    damage: str, world: Benchmark, loaded: LoadedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """FAULTS 33: one bit of a value or of the noted costs, and files that were not written to their end."""
    first = table(loaded, world, tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "value":
        content[-3] ^= 1
    elif damage == "costs":
        content[content.index(b"tokens") + 10] ^= 1
    else:
        del content[len(content) // 2 if damage == "cut" else 0 :]
    file.write_bytes(content)
    assert torch.equal(table(loaded, world, tmp_path).forget, first.forget)
    assert f"{file} is damaged" in caplog.text
    caplog.clear()
    table(loaded, world, tmp_path)
    assert not caplog.text


def test_a_table_that_is_there_costs_what_it_cost(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    """So a run that was killed behind its table ends with the costs of one that was not."""
    loaded.ledger.take()
    done = loaded.ledger.done
    table(loaded, world, tmp_path)
    made = loaded.ledger.take()
    table(loaded, world, tmp_path)
    assert loaded.ledger.take() == made and made.tokens > 0
    assert (loaded.ledger.done - done) == made  # the process itself did it once


def test_other_weights_or_rows_make_another_table(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    table(loaded, world, tmp_path)
    table(loaded, world, tmp_path, key="other weights")
    table(loaded, world, tmp_path, last=11)
    assert len(list(tmp_path.iterdir())) == 3
