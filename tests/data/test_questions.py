"""The prompt of lm-evaluation-harness's mmlu and wmdp tasks, letter by letter; and the rows that depend on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from erulab.data import questions
from erulab.data.arc import Arc, ArcOptions, Subset
from erulab.data.base import Dataset
from erulab.data.mmlu import Mmlu, MmluOptions
from erulab.data.mmlu_categories import MmluCategories, MmluCategoriesOptions
from erulab.data.questions import format_example, letter_row, subject_header
from erulab.data.rwku import Rwku, RwkuOptions
from erulab.data.wmdp import Subject, WmdpQuestions, WmdpQuestionsOptions
from tests.samples.questions import ARC_QUERIES, WMDP, write
from tests.samples.rwku_files import hub_layout


def test_the_prompt_is_the_harness_s() -> None:
    opening = subject_header("biology") + format_example("What is 1+1?", ["1", "2", "3", "4"], 1)
    row = letter_row("bio/7", opening, " Which one? ", ["this", "that"], 1)
    assert row.prompt == (
        "The following are multiple choice questions (with answers) about biology.\n\n"
        "What is 1+1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n\n"
        "Which one?\nA. this\nB. that\nAnswer:"
    )
    assert (row.response, row.options, row.plain) == (" B", (" A",), True)


def readers(folder: Path) -> list[Dataset]:
    """Returns every data set that holds such questions, each with files of its own."""
    write(folder / "arc_easy.jsonl", ARC_QUERIES)
    write(folder / "virology" / "test.jsonl", WMDP)
    write(folder / "mmlu_chemistry.jsonl", WMDP[:4])
    write(folder / "mmlu_law.jsonl", WMDP[4:])
    write(folder / "wmdp-bio.jsonl", WMDP)
    path = str(folder)
    return [
        Arc(ArcOptions(path=path, subsets=[Subset.easy])),
        Mmlu(MmluOptions(path=path)),
        MmluCategories(MmluCategoriesOptions(path=path)),
        WmdpQuestions(WmdpQuestionsOptions(path=path, subjects=[Subject.bio])),
        Rwku(RwkuOptions(path=str(hub_layout(folder)), targets=["Ada Lund"])),
    ]


def test_rows_of_an_older_form_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(reader: Dataset, cache: Path) -> int:
        reader.load(0, cache)
        return len(list((cache / "rows").iterdir()))

    def tables(folder: str) -> list[int]:
        return [kept(reader, tmp_path / str(i)) for i, reader in enumerate(readers(tmp_path / folder))]

    old = tables("once")
    assert tables("again") == old
    monkeypatch.setattr(questions, "VERSION", questions.VERSION + 1)
    assert tables("later") == [2 * count for count in old]
