"""Chooses which of a model's figures are shown if there is no room for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from erulab.reporting.kept_step import KEPT

# Figures that another one of the same suite expresses better, or that make sense only in a comparison of rows.
SECONDARY = {
    "n",
    "log_odds",
    "truth_ratio_arithmetic",
    "model_utility_arithmetic",
    "exact_memorization",
    "knowledge",
    "zlib",
    "min_k",
    "min_k_plus_plus",
    "auc_nll",
    "auc_zlib",
    "auc_min_k_plus_plus",
    "rank_auc",
    "value_nll",
    "template_nll",
    "paraphrase_probability",
    "refusal_log_odds",
    "longest_repetition",
    "stderr",
}
# Figures of generated responses; a suite that has none of them is there for the responses' entropy.
OVERLAPS = ("rouge", "rouge_f1", "rwku_recall", "f1", "final_answer", "final_answer_character")
# Prefixes of figures in scores.json about the cost of a model, its comparison with others, the step it is of, or the
# reason why a figure is missing.
COST = "cost/"
NOT_OF_ROWS = (COST, "knowledge_left", "oracle_spread", "utility_kept", "uds_", KEPT)


def figures_worth_showing(
    scores: Mapping[str, Mapping[str, Any]],
    chosen: Sequence[str],
    extra_benchmarks: Iterable[str] = (),
    *,
    every: bool = False,
) -> list[str]:
    """Chooses names of figures, in the order of scores.json.

    Args:
        scores: model -> figure -> value.
        chosen: figures of the data set to show. If it has none of them, or with `every`, all worth showing are shown.
        extra_benchmarks: names of extra benchmarks; all of their figures worth showing are shown.
        every: see `chosen`.
    """
    names = list(
        dict.fromkeys(name for figures in scores.values() for name in figures if _is_worth_showing(name, figures))
    )
    benchmarks = tuple(extra_benchmarks)
    of_benchmarks = [name for name in names if name.startswith(benchmarks)]
    own = [name for name in names if name not in of_benchmarks]
    known = {name for figures in scores.values() for name in figures}
    few = [name for name in chosen if name in known]
    return (own if every or not few else few) + of_benchmarks


def row_count(figures: Mapping[str, Any], name: str) -> Any:
    """Returns the number of rows a figure was measured on; None for a figure over several suites without a count."""
    return figures.get(f"{name}/n", figures.get(f"{name.rpartition('/')[0]}/n"))


def _is_worth_showing(name: str, figures: Mapping[str, Any]) -> bool:
    suite, _, figure = name.rpartition("/")
    if name.startswith(NOT_OF_ROWS) or figure in SECONDARY:
        return False
    if figure == "entropy" and any(f"{suite}/{overlap}" in figures for overlap in OVERLAPS):
        return False
    return figure != "nll" or f"{suite}/probability" not in figures
