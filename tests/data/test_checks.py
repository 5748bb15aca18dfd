"""What every benchmark must hold: sets are not empty, rows differ, forget and retain do not overlap."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from erulab.data.checks import check_benchmark, content_identity
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.errors import DataError

FORGET = tuple(Row(f"f{i}", f"question {i}?", f"answer {i}") for i in range(5))
RETAIN = tuple(Row(f"r{i}", f"other {i}?", f"reply {i}") for i in range(5))


def make(forget: tuple[Row, ...] = FORGET, retain: tuple[Row, ...] = RETAIN, *suites: Suite) -> Benchmark:
    suites = (Suite("forget", Role.FORGET, forget), *suites)
    return Benchmark("mine", suites, (), forget, retain, forget + retain, retain)


def test_a_sound_benchmark_passes_unchanged() -> None:
    benchmark = make()
    assert check_benchmark(benchmark) == benchmark


@pytest.mark.parametrize("part", ["forget", "retain"])
def test_an_empty_set(part: str) -> None:
    """FAULTS 9."""
    with pytest.raises(DataError, match=f"the {part} set has 0 rows"):
        check_benchmark(make(**{part: ()}))


def test_a_data_set_that_has_nothing_to_rehearse() -> None:
    """FAULTS 9."""
    benchmark = make(retain=())
    assert check_benchmark(benchmark, needed=("forget",)) == benchmark
    with pytest.raises(DataError, match="the forget set has 0 rows"):
        check_benchmark(make(forget=(), retain=()), needed=("forget",))


def test_overlap_names_the_count_and_three_rows_unless_allowed() -> None:
    """FAULTS 10."""
    shared = tuple(dataclasses.replace(row, id=f"copy{row.id}") for row in FORGET[1:])
    with pytest.raises(DataError, match=r"4 of 5 forget rows \(f1, f2, f3\) overlap.*allow_overlap=true"):
        check_benchmark(make(retain=RETAIN + shared))
    notes = check_benchmark(make(retain=RETAIN + shared), allow_overlap=True).notes
    assert any("4 of 5 forget rows (f1, f2, f3) overlap with retain rows" in note for note in notes)
    # The same question with another answer is another fact.
    check_benchmark(make(retain=(*RETAIN, Row("x", FORGET[0].prompt, "something else"))))


@pytest.mark.parametrize("response", ["answer  1", " answer 1", "answer 1\n", "ａｎｓｗｅｒ 1", "answer\u00a01"])
def test_white_space_and_unicode_form_do_not_hide_an_overlap(response: str) -> None:
    """FAULTS 10."""
    with pytest.raises(DataError, match=r"1 of 5 forget rows \(f1\) overlap with retain rows"):
        check_benchmark(make(retain=(*RETAIN, Row("x", "question 1?", response))))


@pytest.mark.parametrize("response", ["Answer 1.", "answer, 1", "ANSWER 1"])
def test_rows_that_differ_in_case_and_punctuation_only_are_warned_of(response: str) -> None:
    """FAULTS 10."""
    notes = check_benchmark(make(retain=(*RETAIN, Row("x", "question 1 ?", response)))).notes
    note = "1 of 5 forget rows (f1) overlap with retain rows but for case or punctuation"
    assert note in notes and len(notes) == 2  # the oracle learns the row too


def test_held_out_rows_may_not_be_forget_rows() -> None:
    """FAULTS 10."""
    suite = Suite("heldout", Role.HELDOUT, (dataclasses.replace(FORGET[2], id="h"),))
    with pytest.raises(DataError, match=r"1 of 5 forget rows \(f2\) overlap with held-out rows"):
        check_benchmark(make(FORGET, RETAIN, suite))


def test_duplicates_are_counted_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 11."""
    twins = tuple(dataclasses.replace(row, id=f"twin{row.id}") for row in FORGET[:2])
    with caplog.at_level(logging.WARNING, logger="erulab"):
        notes = check_benchmark(make(forget=FORGET + twins)).notes
    assert notes == ("forget: 2 of 7 rows are duplicates (same prompt and response)",)
    assert notes[0] in caplog.text


def test_blank_texts_and_shared_ids() -> None:
    with pytest.raises(DataError, match=r"retain: 1 row has \(x\) an empty prompt or response"):
        check_benchmark(make(retain=(*RETAIN, Row("x", "p", " \n"))))
    with pytest.raises(DataError, match=r"forget: 1 row has \(f0\) an id"):
        check_benchmark(make(forget=(*FORGET, Row("f0", "p", "r"))))


def test_identity_is_of_rows_not_of_notes() -> None:
    benchmark = make()
    assert content_identity(benchmark) == content_identity(dataclasses.replace(benchmark, notes=("x",)))
    changed = (dataclasses.replace(FORGET[0], perturbed=("wrong",)), *FORGET[1:])
    assert content_identity(benchmark) != content_identity(make(forget=changed))
