"""Which of a model's figures are worth a line where not all can be shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Another figure of the same suite says it better, or only a comparison of rows makes sense of them.
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
}
# Figures of scores.json that say what a model took or how it compares, not what it can do.
COST, RESIDUAL = "cost/", "residual"


def telling(
    scores: Mapping[str, Mapping[str, Any]], chosen: Sequence[str], beside: Iterable[str] = (), *, every: bool = False
) -> list[str]:
    """Names of figures, in the order of scores.json.

    Args:
        scores: model -> figure -> value.
        chosen: figures to show of the data set; where it has none of them, or with `every`, all that tell something.
        beside: names of the benchmarks measured beside it, of which all that tell something are shown.
    """
    names = list(dict.fromkeys(name for figures in scores.values() for name in figures if _tells(name, figures)))
    benchmarks = tuple(beside)
    of_benchmarks = [name for name in names if name.startswith(benchmarks)]
    own = [name for name in names if name not in of_benchmarks]
    known = {name for figures in scores.values() for name in figures}
    few = [name for name in chosen if name in known]
    return (own if every or not few else few) + of_benchmarks


def rows_of(figures: Mapping[str, Any], name: str) -> Any:
    """The number of rows a figure was measured on; None where it is of several suites."""
    return figures.get(f"{name}/n", figures.get(f"{name.rpartition('/')[0]}/n")) if "/" in name else None


def _tells(name: str, figures: Mapping[str, Any]) -> bool:
    suite, _, figure = name.rpartition("/")
    if name.startswith((COST, RESIDUAL)) or figure in SECONDARY:
        return False
    return figure != "nll" or f"{suite}/probability" not in figures
