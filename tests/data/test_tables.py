"""Rows on disk are the rows in memory; a damaged table is made again, never read."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.rows import Row
from erulab.data.sequences import Joined, Marked, Picked
from erulab.data.store import COLUMNS, MANIFEST, MARKS
from erulab.data.tables import RowTable, field_of, row_table, rows_hash
from erulab.errors import EnvironmentFault

# Every field of a row is used in one of them, texts of all kinds.
ROWS = (
    *FictitiousWorld(FictitiousOptions(exposures=[1, 3])).load(0).target_rows,
    Row("ü/0", "line\nline\u2028line", "emoji 😀", None, ("", "wrong"), options=("a", "b"), author="\x00"),
    Row("led", "question", "", refusal="No.", fabricated="made up", accepted=("c",), lead="Answer:"),
    Row("text", "", "as it stands", plain=True),
)


def kept(cache: Path, rows: tuple[Row, ...] = ROWS, name: str = "rows") -> RowTable:
    return row_table(cache, {"name": name}, lambda extra: iter(rows))


def test_rows_on_disk_are_the_rows_in_memory(tmp_path: Path) -> None:
    table = kept(tmp_path)
    assert len(table) == len(ROWS) and tuple(table) == ROWS
    assert [table[i] for i in (0, 7, -1, -len(ROWS))] == [ROWS[i] for i in (0, 7, -1, -len(ROWS))]
    for part in (slice(3, 9), slice(None, None, -2), slice(0, 0), slice(-5, None), slice(5)):
        assert tuple(table[part]) == ROWS[part]
    assert tuple(table[10:400][3:50][::7]) == ROWS[10:400][3:50][::7]
    for index in (len(ROWS), -len(ROWS) - 1):
        with pytest.raises(IndexError):
            table[index]
    for field in ("id", "content", "exposures", "blank", "plain", "answered"):
        assert (field_of(table, field) == field_of(ROWS, field)).all()
    assert set(field_of(table, "exposures")) == {1, 3}


def test_tables_of_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By rows and by size: a batch is what is in memory while a table is written."""
    for name, value in (("BATCH_ROWS", 7), ("BATCH_SIZE", 500)):
        with monkeypatch.context() as patch:
            patch.setattr(f"erulab.data.store.{name}", value)
            table = kept(tmp_path, name=name)
        assert tuple(table) == ROWS and [table[i] for i in range(len(ROWS))] == list(ROWS)


def test_a_hash_is_of_the_rows_however_they_are_put_together(tmp_path: Path) -> None:
    table = kept(tmp_path)
    assert rows_hash(table) == rows_hash(ROWS) == rows_hash(Joined([table[:5], table[5:]]))
    assert tuple(Joined([table[:5], table[5:]])) == ROWS and Joined([table, table])[len(ROWS)] == ROWS[0]
    assert rows_hash(table[3:9]) == rows_hash(ROWS[3:9]) != rows_hash(ROWS[3:10])
    assert rows_hash(table[::-1]) == rows_hash(ROWS[::-1]) != rows_hash(ROWS)
    for field in dataclasses.fields(Row):
        now = getattr(ROWS[0], field.name)
        value: Any = 9 if isinstance(now, int) else ("x",) if isinstance(now, tuple) else "x"
        changed = (dataclasses.replace(ROWS[0], **{field.name: value}), *ROWS[1:])
        assert rows_hash(changed) != rows_hash(ROWS), field.name


def test_made_once_and_kept_by_what_it_depends_on(tmp_path: Path) -> None:
    kept(tmp_path)

    def never(extra: dict[str, Any]) -> Iterator[Row]:
        raise AssertionError("made again")

    assert tuple(row_table(tmp_path, {"name": "rows"}, never)) == ROWS
    with pytest.raises(AssertionError, match="made again"):
        row_table(tmp_path, {"name": "other"}, never)
    # What failed is not there the next time.
    assert [path.name for path in (tmp_path / "rows").iterdir() if path.is_dir()] == [
        path.name for path in (tmp_path / "rows").iterdir() if (path / MANIFEST).is_file()
    ]
    assert tuple(kept(tmp_path, ROWS[:3], "other")) == ROWS[:3]


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("name", [COLUMNS, MARKS, MANIFEST])
@pytest.mark.parametrize("damage", [half, flipped, None])
def test_a_damaged_table_is_made_again(
    name: str, damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept(tmp_path)
    (file,) = tmp_path.glob(f"rows/*/{name}")
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    assert tuple(kept(tmp_path)) == ROWS
    assert "damaged" in caplog.text and "made again" in caplog.text
    caplog.clear()
    assert tuple(kept(tmp_path)) == ROWS and not caplog.text


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match=r"cannot keep the data set's tables in .*; type cache=FOLDER"):
        kept(tmp_path / "file")


def test_two_processes_make_a_table_once(tmp_path: Path) -> None:
    script = (
        "import pathlib, time\n"
        "from erulab.data.rows import Row\n"
        "from erulab.data.tables import row_table\n"
        "def rows(extra):\n"
        f"    with open({str(tmp_path / 'made')!r}, 'a') as f: f.write('x')\n"
        "    time.sleep(0.5)\n"
        "    yield Row('a', 'p', 'r')\n"
        f"print(row_table(pathlib.Path({str(tmp_path)!r}), {{}}, rows)[0].prompt)\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["p", "p"]
    assert (tmp_path / "made").read_text() == "x"


def test_picked_rows_keep_their_order(tmp_path: Path) -> None:
    table = kept(tmp_path)
    places = random.Random(0).choices(range(len(ROWS)), k=50)
    picked: Marked[Row] = Picked(table, np.array(places))
    assert tuple(picked) == tuple(ROWS[i] for i in places)
    assert rows_hash(picked) == rows_hash(tuple(ROWS[i] for i in places))
