"""MMLU and ARC: the hub's layouts, groups, few-shot prompts, and broken files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erulab.data.arc import Arc, ArcOptions, Subset
from erulab.data.measures import Choice, Pooled
from erulab.data.mmlu import GROUPS, SUBJECTS, Mmlu, MmluOptions
from erulab.data.rows import Benchmark, Role
from erulab.errors import ConfigError, DataError
from tests.data.test_wmdp import parquet
from tests.samples.questions import ARC, ARC_OF_QUERIES, ARC_QUERIES, MMLU_DEV, WMDP, write

UTILITY = Path(__file__).parents[2].parent / "shared" / "data" / "utility"


def mmlu(path: Path, cache: Path, **options: Any) -> Benchmark:
    benchmark = Mmlu(MmluOptions(path=str(path), **options))
    benchmark.validate()
    return benchmark.load(0, cache)


def arc(path: Path, cache: Path, **options: Any) -> Benchmark:
    benchmark = Arc(ArcOptions(path=str(path), **options))
    benchmark.validate()
    return benchmark.load(0, cache)


def of(subject: str, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**question, "subject": subject} for question in questions]


@pytest.fixture
def every(tmp_path: Path) -> Path:
    """The hub's configuration `all`, its subjects mixed."""
    first = [*of("virology", WMDP[:2]), *of("anatomy", WMDP[2:5])]
    test = [*first, *of("virology", WMDP[5:6]), *of("sociology", WMDP[:1])]
    parquet(tmp_path / "hub" / "all" / "test-00000-of-00001.parquet", test)
    dev = [*of("anatomy", MMLU_DEV), *of("virology", MMLU_DEV[1:]), *of("sociology", MMLU_DEV[:2])]
    parquet(tmp_path / "hub" / "all" / "dev-00000-of-00001.parquet", dev)
    parquet(tmp_path / "hub" / "all" / "auxiliary_train-00000-of-00001.parquet", of("", MMLU_DEV))
    return tmp_path / "hub"


def test_there_are_57_subjects_in_four_groups() -> None:
    assert {group: len(subjects.split()) for group, subjects in GROUPS.items()} == {
        "stem": 19,
        "humanities": 13,
        "social_sciences": 12,
        "other": 13,
    }
    assert len(set(SUBJECTS)) == len(SUBJECTS) == 57


def test_questions_are_sorted_into_groups(every: Path, tmp_path: Path) -> None:
    benchmark = mmlu(every, tmp_path)
    assert {suite.name: [row.id for row in suite.rows] for suite in benchmark.suites} == {
        "mmlu_stem": ["mmlu/anatomy/0", "mmlu/anatomy/1", "mmlu/anatomy/2"],
        "mmlu_social_sciences": ["mmlu/sociology/0"],
        "mmlu_other": ["mmlu/virology/0", "mmlu/virology/1", "mmlu/virology/2"],
    }
    assert all(suite.role is Role.RETAIN and suite.measure == Choice() for suite in benchmark.suites)
    names = ("mmlu_stem", "mmlu_social_sciences", "mmlu_other")
    assert benchmark.summaries == (Pooled("mmlu", "accuracy", names),)
    assert benchmark.notes[0] == "mmlu: 3 of 57 subjects"
    opening = "The following are multiple choice questions (with answers) about virology.\n\n"
    assert benchmark.suite("mmlu_other").rows[2].prompt.startswith(opening + WMDP[5]["question"].strip() + "\nA. ")


def test_files_a_subject_give_the_same_rows(every: Path, tmp_path: Path) -> None:
    for subject, questions in (("virology", [*WMDP[:2], WMDP[5]]), ("anatomy", WMDP[2:5]), ("sociology", WMDP[:1])):
        write(tmp_path / "own" / subject / "test.jsonl", questions)
        write(tmp_path / "own" / subject / "dev.jsonl", MMLU_DEV if subject == "anatomy" else MMLU_DEV[1:])
    for options in ({}, {"subjects": ["anatomy", "virology"]}, {"subjects": ["anatomy"], "shots": 2}):
        one, other = mmlu(every, tmp_path, **options), mmlu(tmp_path / "own", tmp_path, **options)
        assert [list(suite.rows) for suite in one.suites] == [list(suite.rows) for suite in other.suites]
    assert [suite.name for suite in other.suites] == ["mmlu_stem"]


def test_the_same_file_for_another_subject_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    write(folder / "virology" / "test.jsonl", WMDP[:2])
    assert mmlu(folder, tmp_path).suite("mmlu_other").rows[0].id == "mmlu/virology/0"
    (folder / "virology").rename(folder / "management")
    row = mmlu(folder, tmp_path).suite("mmlu_other").rows[0]
    assert row.id == "mmlu/management/0" and "about management.\n" in row.prompt


def test_shots_are_the_first_of_the_dev_split(every: Path, tmp_path: Path) -> None:
    prompt = mmlu(every, tmp_path, shots=2).suite("mmlu_stem").rows[0].prompt
    header, *examples, asked = prompt.split("\n\n")
    assert header == "The following are multiple choice questions (with answers) about anatomy."
    for example, question in zip(examples, MMLU_DEV[:2], strict=True):
        assert example.startswith(question["question"].strip() + "\nA. ")
        assert example.endswith(f"\nAnswer: {'ABCD'[question['answer']]}")
    assert asked.endswith("\nAnswer:")


def test_a_subject_without_enough_examples_is_not_asked_with_fewer(every: Path, tmp_path: Path) -> None:
    dev = every / "all" / "dev-00000-of-00001.parquet"
    parquet(dev, [*of("anatomy", MMLU_DEV), *of("virology", MMLU_DEV)])
    said = (
        r"shots=3, but the dev split has 0 questions on sociology; type benchmark\.mmlu\.shots=0, or leave sociology "
        r"out of benchmark\.mmlu\.subjects"
    )
    for _ in range(2):  # the second time from the cache
        with pytest.raises(DataError, match=said):
            mmlu(every, tmp_path, shots=3)
    assert len(mmlu(every, tmp_path, shots=3, subjects=["anatomy", "virology"]).suites) == 2
    # Examples on a subject that nothing is asked about may be few.
    parquet(
        dev,
        [
            *(row for name in ("anatomy", "virology", "sociology") for row in of(name, MMLU_DEV)),
            *of("astronomy", MMLU_DEV[:1]),
        ],
    )
    assert len(mmlu(every, tmp_path, shots=3).suites) == 3


def test_faults_of_mmlu(every: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shots=3, but the dev split has 2 questions on virology; .*shots=2"):
        mmlu(every, tmp_path, shots=3, subjects=["virology", "anatomy"])
    with pytest.raises(DataError, match="no test questions on astronomy"):
        mmlu(every, tmp_path, subjects=["anatomy", "astronomy"])
    with pytest.raises(DataError, match=r"has no all/test-\*\.parquet"):
        Mmlu(MmluOptions(path=str(tmp_path))).validate()
    (every / "all" / "dev-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"has no all/dev-\*\.parquet"):
        Mmlu(MmluOptions(path=str(every), shots=5)).validate()
    with pytest.raises(ConfigError, match=r"benchmark\.mmlu\.path must be a folder or hub id"):
        Mmlu(MmluOptions(path=None)).validate()
    with pytest.raises(ValueError, match="subjects must be null or some of MMLU's 57 subjects"):
        MmluOptions(subjects=["anatomi"])
    write(tmp_path / "bad" / "all" / "test.jsonl", of("alchemy", WMDP[:1]))
    with pytest.raises(DataError, match=r"test\.jsonl:1: MMLU has no subject 'alchemy'"):
        mmlu(tmp_path / "bad", tmp_path)
    write(tmp_path / "bad" / "all" / "test.jsonl", of("anatomy", [WMDP[0], WMDP[1] | {"answer": 9}]))
    with pytest.raises(DataError, match=r"test\.jsonl:2: field 'answer' must be the place of a choice, 0 to 3, got 9"):
        mmlu(tmp_path / "bad", tmp_path)


def test_arc_in_both_forms(tmp_path: Path) -> None:
    write(tmp_path / "queries" / "arc_easy.jsonl", ARC_QUERIES)
    parquet(tmp_path / "hub" / "ARC-Easy" / "test-00000-of-00001.parquet", ARC_OF_QUERIES)
    parquet(tmp_path / "hub" / "ARC-Easy" / "train-00000-of-00001.parquet", ARC)
    (one,), (other,) = (arc(tmp_path / form, tmp_path, subsets=[Subset.easy]).suites for form in ("queries", "hub"))
    assert (one.name, one.role, one.measure) == ("arc_easy", Role.RETAIN, Choice(normalized=True))
    assert list(one.rows) == list(other.rows)
    first = one.rows[0]
    assert first.prompt == "Question: Where was author 0 born?\nAnswer:" and first.plain
    assert first.response == f" {WMDP[0]['choices'][1]}"
    assert first.options == tuple(f" {choice}" for i, choice in enumerate(WMDP[0]["choices"]) if i != 1)


def test_arc_labels_may_be_numbers_and_choices_three(tmp_path: Path) -> None:
    write(tmp_path / "ARC-Challenge" / "test.jsonl", ARC)
    rows = arc(tmp_path, tmp_path, subsets=[Subset.challenge]).suite("arc_challenge").rows
    assert [row.response for row in rows] == [
        f" {q['choices']['text'][q['choices']['label'].index(q['answerKey'])]}" for q in ARC
    ]
    assert {len(row.options) for row in rows} == {2, 3}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (ARC[0] | {"answerKey": "E"}, r"test\.jsonl:1: answerKey 'E' is none of the labels A, B, C, D"),
        (ARC[0] | {"choices": ["a", "b"]}, r"test\.jsonl:1: field 'choices' must be an object, got list"),
        (ARC[0] | {"choices": {"text": ["a", "b"], "label": ["A"]}}, r"2 texts and 1 labels"),
        (ARC_QUERIES[0] | {"gold": 4}, r"test\.jsonl:1: field 'gold' must be the place of a choice, 0 to 3, got 4"),
        (ARC_QUERIES[0] | {"choices": ["a"]}, r"field 'choices' has 1 choices"),
        (ARC_QUERIES[0] | {"choices": ["a", "b", "c", " "]}, r"field 'choices\[3\]' is empty"),
    ],
)
def test_broken_arc(record: dict[str, Any], said: str, tmp_path: Path) -> None:
    write(tmp_path / "ARC-Easy" / "test.jsonl", [record])
    with pytest.raises(DataError, match=said):
        arc(tmp_path, tmp_path, subsets=[Subset.easy])


def test_missing_arc(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no ARC-Easy/test-\*\.parquet and no arc_easy\.jsonl .*leave easy out"):
        Arc(ArcOptions(path=str(tmp_path))).validate()
    with pytest.raises(ValueError, match="subsets must be easy, challenge or both"):
        ArcOptions(subsets=[Subset.easy, Subset.easy])


@pytest.mark.skipif(not UTILITY.is_dir(), reason=f"ARC's questions are not at {UTILITY}")
def test_the_real_questions_are_counted(tmp_path: Path) -> None:
    benchmark = arc(UTILITY, tmp_path)
    assert {suite.name: len(suite.rows) for suite in benchmark.suites} == {"arc_easy": 2376, "arc_challenge": 1172}
    # A tie between the right choice and a wrong one would be scored otherwise by the harness: there is none.
    assert all(row.response not in row.options for suite in benchmark.suites for row in suite.rows)
