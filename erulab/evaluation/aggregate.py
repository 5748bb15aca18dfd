"""From rows to a benchmark's figures: means of suites, and what is made of several suites or of two models."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from erulab.data.measures import Pooled, Separation
from erulab.data.rows import Benchmark, Role, Suite
from erulab.evaluation import membership, metrics, open_unlearning
from erulab.evaluation.evaluate import FORGET_ROLES, RowScore, knowledge_rows

# Row figure -> the suite's figure made of it; all other figures are averaged.
TRUTH_RATIOS = {"log_truth_ratio": "truth_ratio", "log_truth_ratio_arithmetic": "truth_ratio_arithmetic"}
# Figure -> the ones of each suite that its harmonic mean is taken over.
UTILITIES = {
    "model_utility": ("probability", "rouge", "truth_ratio"),
    "model_utility_arithmetic": ("probability", "rouge", "truth_ratio_arithmetic"),
}
MEMBERSHIP = ("nll", "zlib", "min_k", "min_k_plus_plus")
PRIVLEAK = "auc_min_k"  # what MUSE takes PrivLeak of


def aggregate(rows: Sequence[RowScore], benchmark: Benchmark) -> dict[str, float]:
    """Flat metrics: `<suite>/<figure>` with `<suite>/n`, `knowledge`, Model Utility, and the benchmark's summaries.

    Where fewer of a suite's rows have a figure, their number is `<suite>/<figure>/n`.
    """
    result: dict[str, float] = {}
    for suite in benchmark.suites:
        scored = [row.figures for row in rows if row.suite == suite.name]
        if not scored:
            continue
        result[f"{suite.name}/n"] = len(scored)
        for name in dict.fromkeys(name for figures in scored for name in figures):
            values = [figures[name] for figures in scored if name in figures]
            metric = f"{suite.name}/{TRUTH_RATIOS.get(name, name)}"
            result[metric] = _of_suite(name, values, suite)
            if len(values) < len(scored):  # not every row has the data for it
                result[f"{metric}/n"] = len(values)
    known = [row.figures["log_odds"] for row in knowledge_rows(rows)]
    if known:
        result["knowledge"] = _mean(known)
    for utility, figures_ in UTILITIES.items():
        names = [f"{suite.name}/{name}" for suite in benchmark.suites if suite.in_utility for name in figures_]
        if names and all(name in result for name in names):
            result[utility] = metrics.harmonic_mean([result[name] for name in names])
    for summary in benchmark.summaries:
        result |= _pooled(summary, rows) if isinstance(summary, Pooled) else _separation(summary, rows)
    theirs = {suite.name: [row.compat for row in rows if row.suite == suite.name] for suite in benchmark.suites}
    return result | open_unlearning.summary(benchmark.suites, theirs)


def against_oracle(
    rows: Sequence[RowScore], oracle: Sequence[RowScore] | None, benchmark: Benchmark
) -> dict[str, float]:
    """Figures that compare with a model that never saw the forget set: forget quality and PrivLeak.

    PrivLeak may go by a published AUC in its place, forget quality not.
    """
    result: dict[str, float] = {}
    if oracle is not None:
        quality = forget_quality(rows, oracle)
        if quality is not None:
            result["forget_quality"] = quality
        result |= open_unlearning.against_oracle(_compat_of_forget(rows), _compat_of_forget(oracle))
    for summary in benchmark.summaries:
        if isinstance(summary, Separation):
            name = f"{summary.name}/{PRIVLEAK}"
            own, retrained = _separation(summary, rows).get(name), summary.retrained
            if oracle is not None and retrained is None:
                retrained = _separation(summary, oracle).get(name)
            if own is not None and retrained:
                result[f"{summary.name}/privleak"] = membership.priv_leak(own, retrained)
    return result


def forget_quality(rows: Sequence[RowScore], oracle: Sequence[RowScore]) -> float | None:
    """TOFU's Forget Quality on the rows that the request names; None where rows have no wrong answers."""
    mine, retrained = (
        [r.figures["log_truth_ratio"] for r in part if r.role == Role.FORGET.value and "log_truth_ratio" in r.figures]
        for part in (rows, oracle)
    )
    return metrics.forget_quality_of(mine, retrained) if mine and retrained else None


def _compat_of_forget(rows: Sequence[RowScore]) -> list[dict[str, float]]:
    return [row.compat for row in rows if row.role == Role.FORGET.value]


def _of_suite(name: str, values: Sequence[float], suite: Suite) -> float:
    if name not in TRUTH_RATIOS:
        return _mean(values)
    forget = suite.role in FORGET_ROLES
    return metrics.truth_ratio_forget(values) if forget else metrics.truth_ratio_retain(values)


def _pooled(summary: Pooled, rows: Sequence[RowScore]) -> dict[str, float]:
    # Of a part of the suites it would be another figure under the same name.
    if not set(summary.suites) <= {row.suite for row in rows}:
        return {}
    values = [
        row.figures[summary.figure] for row in rows if row.suite in summary.suites and summary.figure in row.figures
    ]
    if not values:
        return {}
    return {f"{summary.name}/n": len(values), f"{summary.name}/{summary.figure}": _mean(values)}


def _separation(summary: Separation, rows: Sequence[RowScore]) -> dict[str, float]:
    """AUCs by each membership score."""
    result = {}
    for name in MEMBERSHIP:
        forget, holdout = (
            [row.figures[name] for row in rows if row.suite == suite and name in row.figures]
            for suite in (summary.forget, summary.holdout)
        )
        if forget and holdout:
            result[f"{summary.name}/auc_{name}"] = membership.auc(np.array(forget), np.array(holdout))
    return result


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)
