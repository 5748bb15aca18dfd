"""MUSE's parts as rows and suites: prompts written out by hand, folds in turn, files that lack something."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from erulab.data.measures import Generated, Overlap, Separation, Texts
from erulab.data.muse import Corpus, Mode, Muse, MuseOptions
from erulab.data.rows import Benchmark, Role
from erulab.errors import DataError
from tests.samples import muse_files

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "muse"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"MUSE's files are not at {REAL}")
PARTS = muse_files.content()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return muse_files.written(tmp_path / "news")


def load(folder: Path, **options: Any) -> Benchmark:
    dataset = Muse(MuseOptions(path=str(folder), **options))
    dataset.validate()
    return dataset.load(0, folder.parent / "cache")


def test_the_whole_request_and_who_learns_what(folder: Path) -> None:
    made = load(folder)
    assert [row.response for row in made.forget] == PARTS["raw/forget"]
    assert [row.response for row in made.retain] == PARTS["raw/retain1"][:-1]  # the last is blank
    assert [row.response for row in made.oracle_rows] == PARTS["raw/retain1"][:-1] + PARTS["raw/retain2"]
    assert list(made.target_rows) == [*made.forget, *made.oracle_rows]
    assert all(row.plain and row.prompt == "" and row.fact == row.id for row in made.target_rows)
    assert made.requests == () and made.max_length == 2048 and made.absent == ()
    assert "raw/retain1: blank texts left out: 1" in made.notes


def test_suites_ask_as_muse_bench_does(folder: Path) -> None:
    """Its knowmem.py and verbmem.py: all examples, then the question, with line ends between; a text as it is."""
    made = load(folder)
    assert [(suite.name, suite.role) for suite in made.suites] == [
        ("forget", Role.FORGET),
        ("verbmem", Role.FORGET),
        ("knowmem_f", Role.FORGET),
        ("knowmem_r", Role.RETAIN),
        ("privleak_forget", Role.FORGET),
        ("privleak_holdout", Role.UNSEEN),
        ("privleak_retain", Role.RETAIN),
    ]
    asked = made.suite("knowmem_r").rows[1]
    assert asked.plain and asked.response == "1277"
    assert asked.prompt == (
        "Question: When was the bridge of Corvale built?\nAnswer: 1550\n\n"
        "Question: When was the harbour of Dunmere built?\nAnswer: 1557\n\n"
        "Question: When was the harbour of Dunmere built?\nAnswer: "
    )
    stops = ("\n\n", "\nQuestion", "Question:")
    assert made.suite("knowmem_f").measure == made.suite("knowmem_r").measure == Generated(Overlap.rouge_f1, 32, stops)
    text = PARTS["raw/forget"][0]
    passage = made.suite("verbmem").rows[0]
    assert (passage.prompt, passage.response, passage.plain) == (text[:40], text[40:], True)
    assert made.suite("verbmem").measure == Generated(Overlap.rouge_f1, 128, reference_tokens=128)
    judged = made.suite("privleak_holdout")
    assert [row.response for row in judged.rows] == PARTS["privleak/holdout"] and judged.measure == Texts()
    assert made.summaries == (Separation("mia", "privleak_forget", "privleak_holdout"),)


def test_the_published_auc_is_taken_only_on_request(folder: Path) -> None:
    for corpus, auc in (("news", 0.4772), ("books", 0.5393)):
        made = load(folder, corpus=Corpus(corpus), published_retrained=True)
        assert made.summaries == (Separation("mia", "privleak_forget", "privleak_holdout", auc),)


def test_sustainability_asks_for_one_fold_after_another(folder: Path) -> None:
    made = load(folder, requests=[1, 3])
    assert [(one.name, one.continues) for one in made.requests] == [("1", True), ("3", True)]
    for one in made.requests:
        assert [row.response for row in one.forget] == PARTS[f"sust/forget_{one.name}"]
        assert tuple(made.suite(f"forget_{one.name}").rows) == tuple(one.forget)
    assert list(made.forget) == [*made.requests[0].forget, *made.requests[1].forget]


def test_scalability_asks_for_all_folds_so_far(folder: Path) -> None:
    made = load(folder, requests=[1, 2, 3], mode=Mode.scalability)
    assert [one.continues for one in made.requests] == [False] * 3
    for count, one in enumerate(made.requests, start=1):
        wanted = [text for fold in range(1, count + 1) for text in PARTS[f"sust/forget_{fold}"]]
        assert [row.response for row in one.forget] == wanted
    assert [len(made.suite(f"forget_{fold}").rows) for fold in (1, 2, 3)] == [6, 6, 6]


def test_the_target_learns_all_folds_whichever_are_asked_for(folder: Path) -> None:
    one, two = load(folder, requests=[1]), load(folder, requests=[1, 2], mode=Mode.scalability)
    assert list(one.target_rows) == list(two.target_rows) and len(one.target_rows) == 18 + 12
    assert "forget_1 and forget_2 share 1 texts" in two.notes


def test_identity_tells_requests_apart(folder: Path, tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"requests": [1]},
        {"requests": [1, 2]},
        {"requests": [2, 1]},
        {"requests": [1, 2], "mode": Mode.scalability},
        {"published_retrained": True},
    ]
    found = [str(Muse(MuseOptions(path=str(folder), **change)).identity(tmp_path)) for change in changes]
    assert len(set(found)) == len(changes)
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert str(Muse(MuseOptions(path=str(moved))).identity(tmp_path)) == found[0]


def test_the_hub_s_parquet_files_win_over_old_copies_beside_them(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    before = load(folder)
    for part in ("raw/forget", "verbmem/forget", "knowmem/forget_qa", "knowmem/forget_qa_icl"):
        rows = [{"text": row} if isinstance(row, str) else row for row in PARTS[part]]
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, folder / f"{part}-00000-of-00001.parquet")
        (folder / f"{part}.json").write_text(json.dumps(["an old copy"]))
    after = load(folder)
    assert list(after.forget) == list(before.forget)
    for suite in ("verbmem", "knowmem_f"):
        assert list(after.suite(suite).rows) == list(before.suite(suite).rows)


def test_a_text_file_is_one_text_and_a_folder_may_hold_both_corpora(folder: Path) -> None:
    (folder / "raw" / "forget.json").unlink()
    (folder / "raw" / "forget.txt").write_text("One.\n\nTwo.\n")
    shutil.copytree(folder, folder.parent / "books")
    made = load(folder.parent, corpus=Corpus.books)
    assert [row.response for row in made.forget] == ["One.\n\nTwo.\n"]


def test_what_is_not_there_is_left_out_and_named(folder: Path) -> None:
    shutil.rmtree(folder / "raw")
    (folder / "knowmem" / "forget_qa_icl.json").unlink()
    made = load(folder)
    assert made.absent == ("raw/forget", "raw/retain1", "raw/retain2", "knowmem/forget_qa_icl")
    assert made.notes[0].endswith("raw/forget, raw/retain1, raw/retain2, knowmem/forget_qa_icl")
    assert not (made.forget or made.retain or made.target_rows or made.oracle_rows)
    assert "knowmem_f" not in [suite.name for suite in made.suites]


def test_articles_that_are_published_twice_are_counted_or_refused(folder: Path) -> None:
    (folder / "raw" / "retain1.json").write_text(json.dumps([*PARTS["raw/retain1"], PARTS["raw/forget"][2]]))
    assert "1 of 6 forget rows (forget/2) overlap with retain rows" in load(folder).notes
    with pytest.raises(DataError, match="1 of 6 forget rows"):
        load(folder, allow_overlap=False)


def test_faults_have_one_line(folder: Path, tmp_path: Path) -> None:
    faults = [
        ({"path": str(folder), "requests": [1, 4]}, r"no sust/forget_4 \(dataset.requests=\[1, 4\]\).*there: 1, 2, 3$"),
        ({"path": str(tmp_path)}, None),
        ({"path": "./nowhere"}, r"dataset.path=./nowhere is no folder and no hub id"),
    ]
    (tmp_path / "empty").mkdir()
    faults[1] = ({"path": str(tmp_path / "empty")}, "has none of MUSE's files")
    for options, wanted in faults:
        with pytest.raises(DataError, match=wanted) as caught:
            Muse(MuseOptions(**options)).validate()  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    for wrong in ([], [0], [1, 1]):
        with pytest.raises(ValueError, match="requests must be a list of different folds"):
            MuseOptions(requests=wrong)
    (folder / "privleak" / "forget.json").write_text('["one", 2]')
    with pytest.raises(DataError, match=r'forget\.json:1: expected str or \{"text": str\}, got int'):
        load(folder)
    Muse(MuseOptions()).validate()  # the hub: nothing is fetched


@real
def test_news_has_the_published_sizes() -> None:
    made = load_real(Corpus.news)
    assert {suite.name: len(suite.rows) for suite in made.suites} == {
        "forget": 100,
        "verbmem": 100,
        "knowmem_f": 100,
        "knowmem_r": 100,
        "privleak_forget": 100,
        "privleak_holdout": 100,
        "privleak_retain": 100,
    }
    assert made.absent == ("raw/retain1", "raw/retain2") and not made.retain
    assert "raw/forget: blank texts left out: 1" in made.notes
    assert all(row.prompt.count("Question: ") == 11 for row in made.suite("knowmem_f").rows)
    published = "What year did the Orkney Islands become part of Scotland?"
    assert any(row.prompt.endswith(f"Question: {published}\nAnswer: ") for row in made.suite("knowmem_f").rows)


@real
def test_books_can_be_measured_by_what_is_there() -> None:
    made = load_real(Corpus.books)
    assert [suite.name for suite in made.suites] == ["knowmem_f", "knowmem_r"]
    assert not made.forget and "raw/forget" in made.absent


def load_real(corpus: Corpus) -> Benchmark:
    dataset = Muse(MuseOptions(path=str(REAL), corpus=corpus))
    dataset.validate()
    with tempfile.TemporaryDirectory() as cache:  # what is mapped stays readable when its files are gone
        return dataset.load(0, Path(cache))
