"""Facts that an attacker may show in a prompt: never the fact that is asked for, never a fact that is reported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from erulab.attacks.halves import validation_half
from erulab.attacks.prompting.prompts import asked_suites
from erulab.data.rows import Role
from erulab.data.words import FULL_STOPS, stands_alone_pattern

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Row

RETAINED = 200  # number of retain rows from which examples are taken


def forget_examples(benchmark: Benchmark, seed: int) -> tuple[Row, ...]:
    """Returns one row per fact of the validation half, in the data set's order."""
    half = validation_half(benchmark, seed)
    rows = (row for suite in asked_suites(benchmark) for row in suite.rows if row.fact_id in half)
    return _one_row_per_fact(rows)


def retain_examples(benchmark: Benchmark) -> tuple[Row, ...]:
    """Returns one row per fact among the first retain rows.

    If the retain rows are texts without a prompt, rows of retain suites are returned whose measure a forget suite has.
    """
    rehearsed = [row for row in benchmark.retain[:RETAINED] if row.prompt]
    if rehearsed:
        return _one_row_per_fact(rehearsed)
    measures = [suite.measure for suite in asked_suites(benchmark)]
    same_measure = [suite for suite in benchmark.suites if suite.role is Role.RETAIN and suite.measure in measures]
    return _one_row_per_fact(row for suite in same_measure for row in suite.rows[:RETAINED] if row.prompt)


def other_facts(examples: Sequence[Row], row: Row) -> list[Row]:
    """Returns the examples that do not contain the row's own fact.

    If the answer is neither a value nor a multiple-choice letter, examples that contain it are left out too, because
    questions on different facts can have the same answer (RWKU's probes). Values and letters belong to many facts.
    """
    answer = "" if row.value or row.options else row.response.strip().rstrip(FULL_STOPS)
    tells = re.compile(stands_alone_pattern(answer), re.IGNORECASE) if answer else None
    return [
        example
        for example in examples
        if example.fact_id != row.fact_id and not (tells and tells.search(question_and_answer(example)))
    ]


def question_and_answer(example: Row) -> str:
    """Returns question and answer as one text."""
    if example.plain:
        return example.prompt + example.response
    if example.answer_prefix:
        return f"{example.prompt}{example.answer_prefix} {example.response}"
    return f"{example.prompt}\n{example.response}"


def join_examples(examples: Iterable[Row], prompt: str) -> str:
    """Returns the prompt with solved examples before it, as text of the same user's turn."""
    return "\n".join([*map(question_and_answer, examples), prompt])


def _one_row_per_fact(rows: Iterable[Row]) -> tuple[Row, ...]:
    found: dict[str, Row] = {}
    for row in rows:
        if row.response:
            found.setdefault(row.fact_id, row)
    return tuple(found.values())
