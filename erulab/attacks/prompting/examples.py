"""Facts that an attacker may show in a prompt: never the one that is asked, never one that is reported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from erulab.attacks.halves import validation_half
from erulab.attacks.prompting.prompts import asked_suites
from erulab.data.rows import Role

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Row

RETAINED = 200  # rows of the retain set that examples are taken from


def forget_examples(benchmark: Benchmark, seed: int) -> tuple[Row, ...]:
    """One row of each fact of the validation half, in the data set's order."""
    half = validation_half(benchmark, seed)
    rows = (row for suite in asked_suites(benchmark) for row in suite.rows if row.fact_id in half)
    return _one_each(rows)


def retain_examples(benchmark: Benchmark) -> tuple[Row, ...]:
    """One row of each fact among the first that are rehearsed; where texts are, those that retain suites ask alike."""
    rehearsed = [row for row in benchmark.retain[:RETAINED] if row.prompt]
    if rehearsed:
        return _one_each(rehearsed)
    measures = [suite.measure for suite in asked_suites(benchmark)]
    alike = [suite for suite in benchmark.suites if suite.role is Role.RETAIN and suite.measure in measures]
    return _one_each(row for suite in alike for row in suite.rows[:RETAINED] if row.prompt)


def others(examples: Sequence[Row], row: Row) -> list[Row]:
    """The examples that do not tell the row's own fact.

    Where answers are no values, a question of another name may have the same answer (RWKU's probes): such are left out
    too. Letters of a choice and values are many facts' own.
    """
    answer = "" if row.value or row.options else row.response.strip().rstrip(".")
    tells = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)", re.IGNORECASE) if answer else None
    return [
        example
        for example in examples
        if example.fact_id != row.fact_id and not (tells and tells.search(shown(example)))
    ]


def shown(example: Row) -> str:
    """Question and answer as text."""
    if example.plain:
        return example.prompt + example.response
    if example.answer_prefix:
        return f"{example.prompt}{example.answer_prefix} {example.response}"
    return f"{example.prompt}\n{example.response}"


def after(examples: Iterable[Row], prompt: str) -> str:
    """The prompt behind solved examples: text of the user's turn, since a chat format has one turn."""
    return "\n".join([*map(shown, examples), prompt])


def _one_each(rows: Iterable[Row]) -> tuple[Row, ...]:
    found: dict[str, Row] = {}
    for row in rows:
        if row.response:
            found.setdefault(row.fact_id, row)
    return tuple(found.values())
