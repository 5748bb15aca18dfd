"""Turns row scores into a benchmark's figures: means over suites, and figures over several suites or two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from erulab.data.measures import Pooled, Separation
from erulab.data.rows import Benchmark, Role, Suite
from erulab.evaluation import membership, metrics, open_unlearning
from erulab.evaluation.figures import comparisons
from erulab.evaluation.figures.groups import forget_components, group_entries
from erulab.evaluation.measures import summaries
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import FORGET_ROLES, knowledge_rows

# Figure of a row -> figure of the suite that is computed from it; all other figures are averaged.
TRUTH_RATIOS = {"log_truth_ratio": "truth_ratio", "log_truth_ratio_arithmetic": "truth_ratio_arithmetic"}
# Model Utility -> the figures of each utility suite whose harmonic mean it is.
UTILITIES = {
    "model_utility": ("probability", "rouge", "truth_ratio"),
    "model_utility_arithmetic": ("probability", "rouge", "truth_ratio_arithmetic"),
}
MEMBERSHIP = ("nll", "zlib", "min_k", "min_k_plus_plus")


def aggregate(rows: Sequence[RowScore], benchmark: Benchmark) -> dict[str, float]:
    """Returns the figures of one model as one flat mapping.

    It holds `<suite>/<figure>` and `<suite>/n`, `knowledge`, Model Utility, the benchmark's summaries and the figures
    of groups of rows. If only some rows of a suite have a figure, `<suite>/<figure>/n` says how many.
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
            result[metric] = _suite_figure(name, values, suite)
            if len(values) < len(scored):
                result[f"{metric}/n"] = len(values)
    known = [row.figures["log_odds"] for row in knowledge_rows(rows)]
    if known:
        result["knowledge"] = metrics.exact_mean(known)
    for utility, names in utility_parts(benchmark).items():
        if names and all(name in result for name in names):
            result[utility] = metrics.harmonic_mean([result[name] for name in names])
    for summary in benchmark.summaries:
        result |= summaries.function_of(summary, f"benchmark {benchmark.name}")(summary, rows)
    for group, entries in group_entries(rows, benchmark).items():
        for name in dict.fromkeys(name for entry in entries for name in entry.figures):
            values = [entry.figures[name] for entry in entries if name in entry.figures]
            result[f"{group}/{name}"] = metrics.exact_mean(values)
            if result.setdefault(f"{group}/n", len(entries)) != len(values):
                result[f"{group}/{name}/n"] = len(values)
    compat = {suite.name: [row.compat for row in rows if row.suite == suite.name] for suite in benchmark.suites}
    return result | open_unlearning.suite_figures(benchmark.suites, compat)


def utility_parts(benchmark: Benchmark) -> dict[str, list[str]]:
    """Maps each Model Utility to the figures whose harmonic mean it is."""
    suites = [suite.name for suite in benchmark.suites if suite.in_utility]
    return {utility: [f"{suite}/{name}" for suite in suites for name in names] for utility, names in UTILITIES.items()}


def row_figures(row: RowScore, suite: Suite) -> dict[str, float]:
    """Returns the values of one row whose means are figures of its suite, by the figures' names in scores.json."""
    forget = suite.role in FORGET_ROLES
    own = {}
    for name, value in row.figures.items():
        if name in TRUTH_RATIOS:
            value = metrics.truth_ratio_forget([value]) if forget else metrics.truth_ratio_retain([value])
        own[f"{suite.name}/{TRUTH_RATIOS.get(name, name)}"] = value
    return own | open_unlearning.row_closeness(suite, row.compat)


def against_oracle(
    rows: Sequence[RowScore],
    oracle: Sequence[RowScore] | None,
    benchmark: Benchmark,
    target: Sequence[RowScore] | None = None,
) -> dict[str, float]:
    """Returns the figures that compare a model with one that never saw the forget set: forget quality, PrivLeak, sMIA.

    PrivLeak can also use a published AUC in place of the oracle's; the others need the oracle, and sMIA the target.
    """
    result: dict[str, float] = {}
    if oracle is not None:
        quality = forget_quality(rows, oracle)
        if quality is not None:
            result["forget_quality"] = quality
        result |= open_unlearning.compat_forget_quality(_forget_compat(rows), _forget_compat(oracle))
    separations = [summary for summary in benchmark.summaries if isinstance(summary, Separation)]
    own, before, retrained = (
        None if model is None else {k: v for one in separations for k, v in membership_aucs(one, model).items()}
        for model in (rows, target, oracle)
    )
    return result | comparisons.membership_comparisons(own or {}, before, retrained, separations)


def aggregates(rows: Sequence[RowScore], figures: Mapping[str, float], benchmark: Benchmark) -> dict[str, float]:
    """Returns open-unlearning's aggregates of a model.

    Args:
        rows: the scores of the benchmark's rows.
        figures: the results of `aggregate` and `against_oracle`.
    """
    found: dict[str, list[float]] = {}
    for entry in forget_components(rows):
        for name, value in entry.figures.items():
            found.setdefault(name, []).append(value)
    means = {name: metrics.exact_mean(values) for name, values in found.items()}
    return comparisons.aggregates(means, figures, benchmark.summaries)


def forget_quality(rows: Sequence[RowScore], oracle: Sequence[RowScore]) -> float | None:
    """Returns TOFU's Forget Quality on the forget rows; None if no forget row has wrong answers."""
    mine, retrained = (
        [r.figures["log_truth_ratio"] for r in part if r.role == Role.FORGET.value and "log_truth_ratio" in r.figures]
        for part in (rows, oracle)
    )
    return metrics.forget_quality_p_value(mine, retrained) if mine and retrained else None


@summaries.register(Pooled)
def pooled_mean(summary: Pooled, rows: Sequence[RowScore]) -> dict[str, float]:
    """Returns the mean of a figure over all rows of several suites; {} if one of the suites was not evaluated."""
    # The mean over only some of the suites would be another figure under the same name.
    if not set(summary.suites) <= {row.suite for row in rows}:
        return {}
    values = [
        row.figures[summary.figure] for row in rows if row.suite in summary.suites and summary.figure in row.figures
    ]
    if not values:
        return {}
    return {f"{summary.name}/n": len(values), f"{summary.name}/{summary.figure}": metrics.exact_mean(values)}


@summaries.register(Separation)
def membership_aucs(summary: Separation, rows: Sequence[RowScore]) -> dict[str, float]:
    """Returns the AUC of each membership score between two suites, in [0, 1]."""
    result = {}
    for name in MEMBERSHIP:
        forget, holdout = (
            [row.figures[name] for row in rows if row.suite == suite and name in row.figures]
            for suite in (summary.forget, summary.holdout)
        )
        if forget and holdout:
            result[f"{summary.name}/auc_{name}"] = membership.auc(np.array(forget), np.array(holdout))
    return result


def _forget_compat(rows: Sequence[RowScore]) -> list[dict[str, float]]:
    return [row.compat for row in rows if row.role == Role.FORGET.value]


def _suite_figure(name: str, values: Sequence[float], suite: Suite) -> float:
    if name not in TRUTH_RATIOS:
        return metrics.exact_mean(values)
    forget = suite.role in FORGET_ROLES
    return metrics.truth_ratio_forget(values) if forget else metrics.truth_ratio_retain(values)
