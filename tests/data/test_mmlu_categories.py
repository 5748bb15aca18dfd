"""The stand-in for WMDP: MMLU's subjects as they are in the public files, and broken copies of them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from erulab.attacks.base import Repeat
from erulab.attacks.relearn_rows import RelearnRows, RelearnSource, RelearnSplit, SplitUnit
from erulab.data.measures import Answers, Choice
from erulab.data.mmlu_categories import MmluCategories, MmluCategoriesOptions
from erulab.data.rows import Benchmark, Role
from erulab.errors import ConfigError, DataError
from tests.samples.questions import WMDP, write

CATEGORIES = Path(__file__).parents[2].parent / "shared" / "data" / "mmlu" / "categories"
SUBJECTS = [
    "STEM",
    "business",
    "chemistry",
    "culture",
    "geography",
    "health",
    "history",
    "law",
    "philosophy",
    "social_sciences",
]
real = pytest.mark.skipif(not CATEGORIES.is_dir(), reason=f"MMLU's subjects are not at {CATEGORIES}")


def load(path: Path, cache: Path, **options: Any) -> Benchmark:
    dataset = MmluCategories(MmluCategoriesOptions(path=str(path), **options))
    dataset.validate()
    return dataset.load(0, cache)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    for number, subject in enumerate(("chemistry", "law", "social_sciences")):
        questions = [{**q, "question": f"{subject}: {q['question']}"} for q in WMDP[3 * number : 3 * number + 3]]
        write(tmp_path / "small" / f"mmlu_{subject}.jsonl", questions)
    return tmp_path / "small"


@real
def test_every_subject_has_157_questions(tmp_path: Path) -> None:
    benchmark = load(CATEGORIES, tmp_path)
    assert len(benchmark.forget) == 157 and len(benchmark.retain) == 9 * 157
    assert Counter(row.author for row in benchmark.target_rows) == dict.fromkeys(SUBJECTS, 157)
    assert {s.name: (s.role, len(s.rows), s.measure, s.in_utility) for s in benchmark.suites} == {
        "forget": (Role.FORGET, 157, Answers("answer"), False),
        "heldout_options": (Role.HELDOUT, 157, Answers("answer"), False),
        "heldout_letters": (Role.HELDOUT, 157, Choice(), False),
        "retain": (Role.RETAIN, 9 * 157, Answers("answer"), True),
        "retain_letters": (Role.RETAIN, 9 * 157, Choice(), False),
    }
    # Four chemistry questions are worded as another one is: 153 facts.
    assert len({row.fact for row in benchmark.forget}) == 153
    first = json.loads((CATEGORIES / "mmlu_chemistry.jsonl").read_text().splitlines()[1])
    row = benchmark.forget[1]
    assert (row.prompt, row.response, row.fact) == (first["question"], "Sb", "chemistry/1")
    assert row.options == row.perturbed == ("W", "Fe", "An")


@real
@pytest.mark.parametrize("by", list(SplitUnit))
def test_relearning_scores_facts_that_were_not_relearned(by: SplitUnit, tmp_path: Path) -> None:
    """By fact, also where two rows ask it; by subject, as in the paper: some are relearned, the others scored."""
    benchmark = load(CATEGORIES, tmp_path, forget=["STEM", "business", "chemistry", "culture", "geography"])
    rows, repeat = RelearnRows(RelearnSource.forget, RelearnSplit.disjoint, by, mixed=False, texts=None), Repeat(0)
    trained = list(rows.trained(benchmark, repeat, rows.available(benchmark, repeat)))
    scored = [row for suite in rows.scored(benchmark, repeat) for row in suite.rows]
    unit = "fact" if by is SplitUnit.fact else "author"
    assert {getattr(row, unit) for row in trained}.isdisjoint({getattr(row, unit) for row in scored})
    asked = {row.prompt for row in trained}
    assert not any(row.prompt in asked for row in scored)
    assert len(trained) + len(scored) // 3 == 5 * 157


def test_the_same_facts_in_three_forms(small: Path, tmp_path: Path) -> None:
    benchmark = load(small, tmp_path)
    for place, question in enumerate(WMDP[:3]):
        rows = [suite.rows[place] for suite in benchmark.suites[:3]]
        assert {(row.fact, row.author) for row in rows} == {(f"chemistry/{place}", "chemistry")}
        asked, listed, letters = rows
        right = question["choices"][question["answer"]]
        assert asked.response == listed.response == right and right not in asked.options
        assert asked.prompt == f"chemistry: {question['question']}"
        assert listed.prompt.startswith(asked.prompt) and all(f"\n- {c}" in listed.prompt for c in question["choices"])
        assert letters.response == f" {'ABCD'[question['answer']]}" and letters.plain and not asked.plain
    assert (
        benchmark.suite("retain_letters")
        .rows[-1]
        .prompt.startswith("The following are multiple choice questions (with answers) about social sciences.\n\n")
    )
    assert list(benchmark.target_rows) == [*benchmark.forget, *benchmark.retain]
    assert list(benchmark.oracle_rows) == list(benchmark.retain)


def test_subjects_are_chosen(small: Path, tmp_path: Path) -> None:
    benchmark = load(small, tmp_path, forget=["law"], retain=["chemistry"])
    assert {row.author for row in benchmark.forget} == {"law"}
    assert {row.author for row in benchmark.retain} == {"chemistry"}


def test_faults(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no mmlu_physics\.jsonl \(dataset\.forget\); subjects there: chemistry, law"):
        load(small, tmp_path, forget=["physics"])
    with pytest.raises(ConfigError, match="dataset.forget and dataset.retain both name law"):
        load(small, tmp_path, forget=["law"], retain=["law"])
    with pytest.raises(DataError, match="so nothing is kept"):
        load(small, tmp_path, forget=["chemistry", "law", "social_sciences"])
    with pytest.raises(ConfigError, match=r"type dataset\.path="):
        MmluCategories(MmluCategoriesOptions()).validate()
    with pytest.raises(DataError, match=r"dataset\.path=nowhere is no folder"):
        load(Path("nowhere"), tmp_path)
    with pytest.raises(ValueError, match="forget must be a list of subjects"):
        MmluCategoriesOptions(forget=[])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": 4}, r"law\.jsonl:3: field 'answer' must be the place of a choice, 0 to 3, got 4"),
        ({"choices": ["a", "b"]}, r"law\.jsonl:3: field 'choices' has 2 choices"),
        ({"choices": ["a", "b", "c", "\n"]}, r"law\.jsonl:3: field 'choices\[3\]' is empty"),
    ],
)
def test_broken_questions(change: dict[str, Any], said: str, small: Path, tmp_path: Path) -> None:
    write(small / "mmlu_law.jsonl", [*WMDP[:2], WMDP[2] | change])
    with pytest.raises(DataError, match=said):
        load(small, tmp_path)


@real
def test_identity_is_of_content(tmp_path: Path) -> None:
    shutil.copytree(CATEGORIES, tmp_path / "copy", copy_function=shutil.copyfile)
    (tmp_path / "copy").chmod(0o755)
    one, other = (MmluCategories(MmluCategoriesOptions(path=str(p))) for p in (CATEGORIES, tmp_path / "copy"))
    assert one.identity(tmp_path) == other.identity(tmp_path)
