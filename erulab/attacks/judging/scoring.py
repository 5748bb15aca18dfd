"""What attacked models are asked: forget rows, and the retain rows that tell whether an attack destroyed the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from erulab.data.measures import Generated, Overlap, Texts
from erulab.data.rows import Benchmark, Role, Suite
from erulab.errors import DataError
from erulab.evaluation.evaluate import RowScore, evaluate
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks

# Enough retain rows to see a destroyed model; teacher-forced only, where the data set has such a suite.
UTILITY_ROWS = 60
# Where rows have scores without it, responses are generated only for few of them: it takes most of the time.
GENERATED_ROWS = 40


def scores(
    loaded: LoadedModel, suites: Sequence[Suite], benchmark: Benchmark, evaluation: EvaluationOptions
) -> list[RowScore]:
    """Row scores of the suites, which may hold some of the benchmark's rows only, or have them asked otherwise."""
    whole = {suite.name: suite for suite in benchmark.suites}
    rows: list[RowScore] = []
    for suite in suites:
        generates = evaluation.generate and _generates(whole[suite.name])
        rows += evaluate(loaded, (suite,), replace(evaluation, generate=generates), Ranks(), headline=True)
    return rows


def utility_suite(benchmark: Benchmark, evaluation: EvaluationOptions) -> Suite:
    """The retain rows that tell whether an attack destroyed the model.

    Raises:
        DataError: no such rows are measured.
    """
    scored = [s for s in benchmark.suites if s.role is Role.RETAIN and has_score(s, evaluation)]
    if not scored:
        raise DataError(
            "attacks are judged by what they leave of a retain suite, and none is measured (evaluation.suites)"
        )
    # One of Model Utility where there is one, else one that needs no generation.
    suite = min(scored, key=lambda suite: (not suite.in_utility, isinstance(suite.measure, Generated)))
    return replace(suite, rows=suite.rows[:UTILITY_ROWS])


def has_score(suite: Suite, evaluation: EvaluationOptions) -> bool:
    """Whether the suite's rows have a figure that says how much of them is known."""
    if isinstance(suite.measure, Generated):
        return evaluation.generate and suite.measure.overlap is not Overlap.entropy
    return not isinstance(suite.measure, Texts)


def union(scored: Iterable[Sequence[Suite]]) -> list[Suite]:
    """Each suite with every row that one of the settings is scored on."""
    found: dict[str, Suite] = {}
    for suites in scored:
        for suite in suites:
            seen = found.get(suite.name, replace(suite, rows=()))
            found[suite.name] = replace(suite, rows=tuple(dict.fromkeys((*seen.rows, *suite.rows))))
    return list(found.values())


def _generates(suite: Suite) -> bool:
    """Whether its responses are generated: they are its only figure, or it has few rows and no candidates."""
    if isinstance(suite.measure, Generated):
        return True
    few = suite.role is Role.FORGET and len(suite.rows) <= GENERATED_ROWS
    return few and not any(row.candidates for row in suite.rows)
