"""open-unlearning's arithmetic, from losses to the figures of suites: pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from erulab.data.rows import Role, Suite
from erulab.evaluation import memorisation, metrics
from erulab.evaluation.figures.comparisons import COMPAT as PREFIX

EPSILON = 1e-10  # added to divisors
UTILITY = ("probability", "rouge", "truth_ratio")

Figures = Mapping[str, float]


def truth_ratio(right: float, wrong: Sequence[float]) -> float:
    """Returns R of one row: the geometric mean of the wrong probabilities over the right one plus 1e-10.

    Args:
        right: NLL per token of the right answer, nats.
        wrong: NLL per token of each wrong answer, nats.
    Source: src/evals/metrics/memorization.py, truth_ratio.
    """
    return math.exp(-metrics.exact_mean(wrong)) / (math.exp(-right) + EPSILON)


def probability_with_options(right: float, wrong: Sequence[float]) -> float:
    """Returns p / (p + sum of wrong p + 1e-10) with p = exp(-NLL).

    Source: src/evals/metrics/memorization.py, probability_w_options.
    """
    p = math.exp(-right)
    return p / (p + math.fsum(math.exp(-other) for other in wrong) + EPSILON)


def memorisation_figures(greedy: Sequence[bool]) -> dict[str, float]:
    """Returns extraction_strength and exact_memorization of a response.

    Args:
        greedy: (tokens,) whether each scored token is the model's most probable one; at least two. The last is left
            out.
    Source: src/evals/metrics/memorization.py; extraction strength does not try k = T.
    """
    matches = np.array(greedy[:-1])
    strength = max(memorisation.extraction_strength(matches), 1 / len(matches))
    return {"extraction_strength": strength, "exact_memorization": memorisation.exact_memorisation(matches)}


def suite_figures(suites: Sequence[Suite], scored: Mapping[str, Sequence[Figures]]) -> dict[str, float]:
    """Returns `open_unlearning/<suite>/<figure>` and n, and its Model Utility if all figures for it are there.

    Args:
        scored: suite name -> figures of its rows; {} for rows to which open-unlearning's protocol does not apply.
    """
    result: dict[str, float] = {}
    for suite in suites:
        rows = [row for row in scored[suite.name] if row]
        if not rows:
            continue
        result[f"{PREFIX}/{suite.name}/n"] = len(rows)
        for name in dict.fromkeys(name for row in rows for name in row):
            values = [row[name] for row in rows if name in row]
            if name == "truth_ratio":
                values = [_closeness(value, suite.role) for value in values]
            result[f"{PREFIX}/{suite.name}/{name}"] = metrics.exact_mean(values)
    parts = utility_parts(suites)
    if parts and all(name in result for name in parts):
        result[f"{PREFIX}/model_utility"] = metrics.harmonic_mean([result[name] for name in parts])
    return result


def utility_parts(suites: Sequence[Suite]) -> list[str]:
    """Returns the names of the figures whose harmonic mean is `open_unlearning/model_utility`."""
    return [f"{PREFIX}/{suite.name}/{name}" for suite in suites if suite.in_utility for name in UTILITY]


def row_closeness(suite: Suite, row: Figures) -> dict[str, float]:
    """Returns the values of one row whose means are the figures `open_unlearning/<suite>/<figure>`."""
    return {
        f"{PREFIX}/{suite.name}/{name}": _closeness(value, suite.role) if name == "truth_ratio" else value
        for name, value in row.items()
    }


def compat_forget_quality(rows: Sequence[Figures], oracle: Sequence[Figures]) -> dict[str, float]:
    """Returns `open_unlearning/forget_quality`; {} if no row has wrong answers.

    Args:
        rows, oracle: figures of the forget rows under the model and under the retrained model.
    """
    mine, retrained = ([row["truth_ratio"] for row in part if "truth_ratio" in row] for part in (rows, oracle))
    if not mine or not retrained:
        return {}
    return {f"{PREFIX}/forget_quality": metrics.forget_quality_p_value(mine, retrained)}


def _closeness(ratio: float, role: Role) -> float:
    """Maps R to [0, 1], where 1 is best: equally probable answers on forget rows, impossible wrong ones elsewhere."""
    return min(ratio, 1 / (ratio + EPSILON)) if role in (Role.FORGET, Role.HELDOUT) else max(0.0, 1 - ratio)
