"""Facts that an attacker may show in a prompt: never the one that is asked, never one that is reported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from erulab.attacks.halves import validation_half
from erulab.attacks.prompts import asked_suites

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Row

RETAINED = 200  # rows of the retain set that examples are taken from


def forget_examples(benchmark: Benchmark, seed: int) -> tuple[Row, ...]:
    """One row of each fact of the validation half, in the data set's order."""
    half = validation_half(benchmark, seed)
    rows = (row for suite in asked_suites(benchmark) for row in suite.rows if (row.fact or row.id) in half)
    return _one_each(rows)


def retain_examples(benchmark: Benchmark) -> tuple[Row, ...]:
    """One row of each fact among the first rows that are rehearsed."""
    return _one_each(row for row in benchmark.retain[:RETAINED] if row.prompt)


def others(examples: Sequence[Row], row: Row) -> list[Row]:
    """The examples that do not tell the row's own fact."""
    return [example for example in examples if (example.fact or example.id) != (row.fact or row.id)]


def shown(example: Row) -> str:
    """Question and answer as text."""
    if example.plain:
        return example.prompt + example.response
    if example.lead:
        return f"{example.prompt}{example.lead} {example.response}"
    return f"{example.prompt}\n{example.response}"


def after(examples: Iterable[Row], prompt: str) -> str:
    """The prompt behind solved examples: text of the user's turn, since a chat format has one turn."""
    return "\n".join([*map(shown, examples), prompt])


def _one_each(rows: Iterable[Row]) -> tuple[Row, ...]:
    found: dict[str, Row] = {}
    for row in rows:
        if row.response:
            found.setdefault(row.fact or row.id, row)
    return tuple(found.values())
