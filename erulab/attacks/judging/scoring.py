"""Scores attacked models: forget rows, and the retain rows that tell whether an attack destroyed the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from erulab.data.rows import Benchmark, Role, Suite
from erulab.errors import DataError
from erulab.evaluation.evaluate import evaluate
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.scoring import Watch
from erulab.evaluation.suites import has_knowledge_figure
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks

# Number of retain rows: enough to see that a model is destroyed.
UTILITY_ROWS = 60
# Responses take most of the time. For rows that have other scores they are generated only in suites up to this size.
GENERATED_ROWS = 40


def score_attacked(
    loaded: LoadedModel,
    suites: Sequence[Suite],
    benchmark: Benchmark,
    evaluation: EvaluationOptions,
    watch: Watch | None = None,
) -> list[RowScore]:
    """Scores the suites' rows with the figures that attacks compare.

    Args:
        suites: suites of the benchmark, possibly with fewer rows or with rewritten prompts.
        watch: is told how far the scoring is.
    """
    whole = {suite.name: suite for suite in benchmark.suites}
    rows: list[RowScore] = []
    for suite in suites:
        generates = evaluation.generate and _generates_under_attack(whole[suite.name])
        options = replace(evaluation, generate=generates)
        rows += evaluate(loaded, (suite,), options, Ranks(), for_attacks_only=True, watch=watch)
    return rows


def utility_suite(benchmark: Benchmark, evaluation: EvaluationOptions) -> Suite:
    """Returns the retain rows that tell whether an attack destroyed the model.

    Raises:
        DataError: no such rows are evaluated.
    """
    scored = [s for s in benchmark.suites if s.role is Role.RETAIN and has_knowledge_figure(s, evaluation)]
    if not scored:
        raise DataError(
            "attacks are judged by what they leave of a retain suite, and none is measured (evaluation.suites)"
        )
    # Preferably a suite of Model Utility, otherwise one that needs no generation.
    suite = min(scored, key=lambda suite: (not suite.in_utility, suite.measure.generates))
    return replace(suite, rows=suite.rows[:UTILITY_ROWS])


def merge_suites(scored: Iterable[Sequence[Suite]]) -> list[Suite]:
    """Returns each suite with every row that one of the settings is scored on."""
    found: dict[str, Suite] = {}
    for suites in scored:
        for suite in suites:
            seen = found.get(suite.name, replace(suite, rows=()))
            found[suite.name] = replace(suite, rows=tuple(dict.fromkeys((*seen.rows, *suite.rows))))
    return list(found.values())


def _generates_under_attack(suite: Suite) -> bool:
    """Returns whether responses are generated: they give the only figures, or rows are few and have no candidates."""
    if suite.measure.generates:
        return True
    few = suite.role is Role.FORGET and len(suite.rows) <= GENERATED_ROWS
    return few and not any(row.candidates for row in suite.rows)
