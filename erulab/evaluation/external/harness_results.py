"""Turns lm-evaluation-harness's results into flat figures, intervals and versions. Pure functions of plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from erulab.evaluation.external.base import ExternalScores

NORMAL_95 = 1.96  # standard errors on each side of a 95 % interval
# Metrics that are shares of the questions. Others have a range of their own (bleu: 0 to 100; perplexity: from 1).
SHARES = ("acc", "acc_norm", "exact_match")
STDERR = "_stderr"
NO_FILTER = "none"


def external_scores(results: Mapping[str, Any]) -> ExternalScores:
    """Returns the figures of every task and group of tasks.

    The metric `exact_match` of task `gsm8k` after the filter `strict-match` is called as the harness writes it,
    `lm_eval/gsm8k/exact_match,strict-match`; without a filter it is `lm_eval/gsm8k/exact_match`. Its standard error,
    where the harness gives one, is at `.../stderr`. `lm_eval/gsm8k/n` counts the questions; `.../n` of a metric counts
    those that have it, where a group holds tasks without it.

    Args:
        results: what `lm_eval.simple_evaluate` returns.
    """
    figures: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for task, values in _with_figures(results).items():
        figures[f"lm_eval/{task}/n"] = values["sample_len"]
        for key, value in values.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith(STDERR) or not _is_number(value):
                continue
            name = f"lm_eval/{task}/{metric}" + ("" if filtered == NO_FILTER else f",{filtered}")
            figures[name] = float(value)
            counted = values.get("sample_count", {}).get(key, values["sample_len"])
            if counted != values["sample_len"]:
                figures[f"{name}/n"] = counted
            stderr = values.get(f"{metric}{STDERR},{filtered}")
            if _is_number(stderr):  # "N/A" where the harness knows none
                figures[f"{name}/stderr"] = float(stderr)
                intervals[name] = normal_interval(float(value), float(stderr), share=metric in SHARES)
    return ExternalScores(figures, intervals, _details(results))


def normal_interval(value: float, stderr: float, *, share: bool) -> tuple[float, float]:
    """Returns the 95 % interval `value` +- 1.96 standard errors; that of a share is cut to [0, 1]."""
    low, high = value - NORMAL_95 * stderr, value + NORMAL_95 * stderr
    return (max(low, 0.0), min(high, 1.0)) if share else (low, high)


def _details(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the version of the harness, and version, examples per prompt and questions of every task."""
    tasks = {
        task: {
            "version": results["versions"].get(task),
            "num_fewshot": results["n-shot"].get(task),
            "n": values["sample_len"],
        }
        for task, values in _with_figures(results).items()
    }
    return {"lm_eval": results["lm_eval_version"], "transformers": results["transformers_version"], "tasks": tasks}


def _with_figures(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the values of tasks and groups, without the groups that add up nothing: they have a name only."""
    return {task: values for task, values in results["results"].items() if "sample_len" in values}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
