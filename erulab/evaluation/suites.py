"""Selects the suites and rows that are evaluated, and those that phrase forgotten facts. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from erulab.data.measures import Answers
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.evaluation.row_score import RowScore
from erulab.options import EvaluationOptions

FORGET_ROLES = (Role.FORGET, Role.HELDOUT)


def selected_suites(benchmark: Benchmark, names: Sequence[str] | None) -> tuple[Suite, ...]:
    """Returns the suites that `evaluation.suites` selects, in the benchmark's order.

    Args:
        names: suite names, with or without the benchmark's name in front; a * at the end stands for any ending
            (`forget*`, `tofu/forget*`). None selects all suites.
    """
    if names is None:
        return benchmark.suites

    def matches(suite: Suite, name: str) -> bool:
        full = f"{benchmark.name}/{suite.name}"
        return any(known.startswith(name[:-1]) if name.endswith("*") else known == name for known in (suite.name, full))

    return tuple(suite for suite in benchmark.suites if any(matches(suite, name) for name in names))


def evaluated_rows(suite: Suite, options: EvaluationOptions) -> Sequence[Row]:
    """Returns all rows of a forget or held-out suite, and the first `evaluation.rows` rows of any other suite."""
    return suite.rows if suite.role in FORGET_ROLES else suite.rows[: options.rows]


def forget_suites(benchmark: Benchmark) -> tuple[Suite, ...]:
    """Returns the forget and held-out suites: their rows phrase the forgotten facts."""
    return tuple(suite for suite in benchmark.suites if suite.role in FORGET_ROLES)


def knowledge_rows(rows: Sequence[RowScore]) -> list[RowScore]:
    """Returns the scored forget and held-out rows that have log-odds: "knowledge left" is computed on these."""
    roles = {role.value for role in FORGET_ROLES}
    return [row for row in rows if row.role in roles and "log_odds" in row.figures]


def without_facts(rows: Sequence[RowScore], facts: Collection[str]) -> Sequence[RowScore]:
    """Returns the scored rows without the forget and held-out rows that phrase one of these facts."""
    roles = {role.value for role in FORGET_ROLES}
    return [row for row in rows if row.role not in roles or row.fact not in facts] if facts else rows


def teacher_forced_suites(benchmark: Benchmark, options: EvaluationOptions) -> tuple[Suite, ...]:
    """Returns the suites with a figure of knowledge that needs no generation, except those that no model learned."""
    teacher_forced = dataclasses.replace(options, generate=False)
    suites = [suite for suite in benchmark.suites if suite.role is not Role.UNSEEN]
    return tuple(suite for suite in suites if has_knowledge_figure(suite, teacher_forced))


def has_knowledge_figure(suite: Suite, options: EvaluationOptions) -> bool:
    """Returns whether the suite's rows get a figure that says how much of them the model knows.

    A figure of a generated response counts only where `evaluation.generate` is true.
    """
    return bool(suite.measure.knowledge) and (options.generate or not suite.measure.generates)


def generates_responses(suite: Suite, options: EvaluationOptions) -> bool:
    """Returns whether responses are generated to the suite's prompts."""
    return options.generate and (isinstance(suite.measure, Answers) or suite.measure.generates)
