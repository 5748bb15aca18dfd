"""Rows in the cache are the rows in memory; a damaged dataset is made again, never read."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from erulab.data.arrow_sequence import read_items, select_items
from erulab.data.dataset_cache import MANIFEST, ROWS_FILE
from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.rows import Row
from erulab.data.stored_rows import StoredRows, hash_rows, row_column, rows_in_memory, store_rows
from erulab.errors import EnvironmentFault

# Every field of a row is used in one of them, texts of all kinds.
ROWS = (
    *FictitiousWorld(FictitiousOptions(exposures=[1, 3])).load(0).target_rows,
    Row("ü/0", "line\nline\u2028line", "emoji 😀", None, ("", "wrong"), options=("a", "b"), author="\x00"),
    Row("begun", "question", "", refusal="No.", fabricated="made up", accepted=("c",), answer_prefix="Answer:"),
    Row("text", "", "as it stands", plain=True),
    Row("turns", "And Bela?", "A baker.", history=(("Who is Ada?", "A weaver."), ("", "x")), system="Be brief."),
)


def store(cache: Path, rows: tuple[Row, ...] = ROWS, name: str = "rows") -> StoredRows:
    return store_rows(cache, {"name": name}, lambda notes: iter(rows))


def test_stored_rows_are_the_rows_in_memory(tmp_path: Path) -> None:
    stored = store(tmp_path)
    assert len(stored) == len(ROWS) and tuple(stored) == ROWS == tuple(rows_in_memory(ROWS))
    assert [stored[i] for i in (0, 7, -1, -len(ROWS))] == [ROWS[i] for i in (0, 7, -1, -len(ROWS))]
    for part in (slice(3, 9), slice(None, None, -2), slice(0, 0), slice(-5, None), slice(5)):
        assert tuple(stored[part]) == ROWS[part]
    assert tuple(stored[10:400][3:50][::7]) == ROWS[10:400][3:50][::7]
    for index in (len(ROWS), -len(ROWS) - 1):
        with pytest.raises(IndexError):
            stored[index]
    for name in ("id_hash", "content_hash", "exposures", "blank", "plain", "answered"):
        for some in (stored, stored[4:9], StoredRows.concatenate([stored[:4], stored[4:]])):
            wanted = row_column(tuple(some), name)
            assert (row_column(some, name) == wanted).all() and row_column(some, name).dtype == wanted.dtype
    assert set(row_column(stored, "exposures")) == {1, 3}


def test_no_rows_at_all(tmp_path: Path) -> None:
    for empty in (store(tmp_path, ()), rows_in_memory(()), store(tmp_path)[:0]):
        assert not empty and list(empty) == [] and not len(row_column(empty, "plain"))
        assert hash_rows(empty) == hash_rows(())


@pytest.mark.parametrize(("name", "value"), [("BATCH_ROWS", 7), ("BATCH_CHARACTERS", 500)])
def test_datasets_of_many_batches(name: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches end by rows and by size: a batch is what is in memory while rows are written."""
    monkeypatch.setattr(f"erulab.data.stored_rows.{name}", value)
    stored = store(tmp_path)
    assert tuple(stored) == ROWS and [stored[i] for i in range(len(ROWS))] == list(ROWS)
    assert hash_rows(stored) == hash_rows(ROWS) and hash_rows(stored[5:300]) == hash_rows(ROWS[5:300])


def test_the_hash_is_of_the_rows_however_they_are_composed(tmp_path: Path) -> None:
    stored = store(tmp_path)
    both = StoredRows.concatenate([stored[:5], stored[5:]])
    assert hash_rows(stored) == hash_rows(ROWS) == hash_rows(both)
    assert tuple(both) == ROWS and StoredRows.concatenate([stored, stored])[len(ROWS)] == ROWS[0]
    assert hash_rows(stored[3:9]) == hash_rows(ROWS[3:9]) != hash_rows(ROWS[3:10])
    assert hash_rows(stored[::-1]) == hash_rows(ROWS[::-1]) != hash_rows(ROWS)
    for field in dataclasses.fields(Row):
        now = getattr(ROWS[0], field.name)
        value: Any = 9 if isinstance(now, int) else ("x",) if isinstance(now, tuple) else "x"
        changed = (dataclasses.replace(ROWS[0], **{field.name: (("x", "y"),) if field.name == "history" else value}),)
        assert hash_rows((*changed, *ROWS[1:])) != hash_rows(ROWS), field.name


def test_made_once_and_kept_by_what_it_depends_on(tmp_path: Path) -> None:
    store(tmp_path)

    def never(notes: dict[str, Any]) -> Iterator[Row]:
        raise AssertionError("made again")

    assert tuple(store_rows(tmp_path, {"name": "rows"}, never)) == ROWS
    with pytest.raises(AssertionError, match="made again"):
        store_rows(tmp_path, {"name": "other"}, never)
    # What failed is not there the next time.
    folders = [path for path in (tmp_path / "rows").iterdir() if path.is_dir()]
    assert len(folders) == 1 and (folders[0] / MANIFEST).is_file()
    assert tuple(store(tmp_path, ROWS[:3], "other")) == ROWS[:3]


def test_notes_are_kept_beside_the_rows(tmp_path: Path) -> None:
    def make(notes: dict[str, Any]) -> Iterator[Row]:
        notes["count"] = 0
        for row in ROWS[:3]:
            notes["count"] += 1
            yield row

    assert [store_rows(tmp_path, {}, make).notes for _ in range(2)] == [{"count": 3}] * 2


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("name", [ROWS_FILE, MANIFEST])
@pytest.mark.parametrize("damage", [half, flipped, None])
def test_a_damaged_dataset_is_made_again(
    name: str, damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store(tmp_path)
    (file,) = tmp_path.glob(f"rows/*/{name}")
    if damage is None:
        file.unlink()
    else:
        content = file.read_bytes()
        file.unlink()  # the rows above still map the old file
        file.write_bytes(damage(content))
    assert tuple(store(tmp_path)) == ROWS
    assert "damaged" in caplog.text and "made again" in caplog.text
    caplog.clear()
    assert tuple(store(tmp_path)) == ROWS and not caplog.text


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match=r"cannot keep the data set's rows in .*; type cache=FOLDER"):
        store(tmp_path / "file")


def test_two_processes_make_a_dataset_once(tmp_path: Path) -> None:
    script = (
        "import pathlib, time\n"
        "from erulab.data.rows import Row\n"
        "from erulab.data.stored_rows import store_rows\n"
        "def rows(notes):\n"
        f"    with open({str(tmp_path / 'made')!r}, 'a') as f: f.write('x')\n"
        "    time.sleep(0.5)\n"
        "    yield Row('a', 'p', 'r')\n"
        f"print(store_rows(pathlib.Path({str(tmp_path)!r}), {{}}, rows)[0].prompt)\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["p", "p"]
    assert (tmp_path / "made").read_text() == "x"


def test_selected_rows_keep_their_order(tmp_path: Path) -> None:
    stored = store(tmp_path)
    places = random.Random(0).choices(range(len(ROWS)), k=50)
    wanted = tuple(ROWS[i] for i in places)
    selected = stored.select(np.array(places))
    assert tuple(selected) == wanted == tuple(select_items(ROWS, places)) and hash_rows(selected) == hash_rows(wanted)
    assert tuple(StoredRows.concatenate([selected, stored[3:5]])) == (*wanted, *ROWS[3:5])
    assert tuple(read_items(stored, places)) == wanted == tuple(read_items(ROWS, places))
    assert read_items(selected, [4, 4, 0]) == [wanted[4], wanted[4], wanted[0]] and read_items(stored, []) == []


def test_nothing_is_written_outside_the_cache(tmp_path: Path) -> None:
    """Hugging Face's library would by itself fill a cache in the home folder."""
    script = (
        "import pathlib\n"
        "from erulab.data.rows import Row\n"
        "from erulab.data.stored_rows import store_rows\n"
        f"rows = store_rows(pathlib.Path({str(tmp_path / 'cache')!r}), {{}}, lambda notes: [Row('a', 'p', 'r')])\n"
        "assert list(rows[:1]) == list(rows)\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment | {"HOME": str(home)})
    assert not list(home.rglob("*"))
