"""What scores.json says of models that are measured on a data set and on a benchmark beside it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from erulab.data.measures import Choice, Pooled
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.evaluation.row_score import RowScore
from erulab.stages.evaluate import scores


def part(name: str, suite: Suite, *summaries: Pooled) -> Any:
    return SimpleNamespace(fitted=Benchmark(name, (suite,), summaries))


def answered(suite: Suite, right: int) -> list[RowScore]:
    """The first `right` of the suite's rows are answered."""
    return [
        RowScore(row.id, suite.name, suite.role.value, row.fact_id, "", {"accuracy": float(i < right)})
        for i, row in enumerate(suite.rows)
    ]


def test_utility_that_is_measured_on_a_benchmark_has_its_interval_from_there() -> None:
    """As WMDP's, whose utility is MMLU."""
    rows = tuple(Row(f"q{i}", "q", "a") for i in range(100))
    asked, kept = Suite("wmdp_cyber", Role.FORGET, rows, Choice()), Suite("mmlu_stem", Role.RETAIN, rows, Choice())
    context: Any = SimpleNamespace(
        data=part("wmdp", asked), extra_benchmarks=(part("mmlu", kept, Pooled("mmlu", "accuracy", ("mmlu_stem",))),)
    )
    found, _ = scores(
        context, {role: [answered(asked, 50), answered(kept, n)] for role, n in (("target", 80), ("unlearned", 76))}
    )
    assert found["unlearned"]["utility_kept"] == pytest.approx(76 / 80)
    assert 0.8 < found["unlearned"]["utility_kept_low"] < 0.95 < found["unlearned"]["utility_kept_high"] <= 1.05
