"""The metrics of an attack's rows in attacks.json: which figures are compared, and on which suites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erulab.attacks.judging.row_figures import FiguresByRow
from erulab.data.measures import Overlap
from erulab.data.rows import Suite
from erulab.errors import DataError
from erulab.evaluation.row_score import RowScore

HEADLINE = "log_odds"
OVERLAPS = tuple(overlap.value for overlap in Overlap if overlap is not Overlap.entropy)
# The figures by which a suite is judged, and those that tell whether an attack destroyed the model; in this order, and
# followed by the figures of a plugin's measure.
SCORES = ("probability", "rouge", "choice", "accuracy", *OVERLAPS)
UTILITIES = ("choice", "accuracy", "probability", *OVERLAPS)


@dataclass(frozen=True)
class Metric:
    """A figure, and the suites whose rows it is averaged over."""

    figure: str
    suites: tuple[str, ...]


def setting_metrics(suites: Sequence[Suite], scored: Sequence[RowScore], before: FiguresByRow) -> dict[str, Metric]:
    """Returns the metrics of one setting by name: log-odds of all forget rows first, if there are any.

    Args:
        suites: the suites on which the setting is scored.
        scored: scores of all attempts on the target.
        before: the target's figures without the attack.
    Raises:
        DataError: no suite has a figure that all its rows have.
    """
    # Suite -> the figures that all its rows have.
    common: dict[str, set[str]] = {}
    for suite in suites:
        figures = [set(row.figures) for row in scored if row.suite == suite.name]
        common[suite.name] = set.intersection(*figures) if figures else set()
    plain = {figure for row in before.values() for figure in row}
    metrics: dict[str, Metric] = {}
    known = tuple(name for name, figures in common.items() if HEADLINE in figures)
    if known:
        metrics[HEADLINE] = Metric(HEADLINE, known)
    for suite in suites:
        # Among candidate values, the choice says more than the probability of the whole response.
        among_values = "choice" in suite.measure.knowledge and any(row.candidates for row in suite.rows)
        usual = ("choice",) if among_values else (*SCORES, *suite.measure.knowledge)
        own = sorted(common[suite.name] - plain - {HEADLINE})  # figures that only this attack measures
        for figure in (*own, *usual):
            if figure in common[suite.name]:
                metrics[f"{suite.name}/{figure}"] = Metric(figure, (suite.name,))
    if not metrics:
        raise DataError("no row that it is scored on has a figure")
    return metrics


def utility_figure(suite: Suite, scored: Sequence[RowScore]) -> str:
    """Returns the figure of the retain suite that tells utility: the first one that all rows have."""
    common = set.intersection(*(set(row.figures) for row in scored))
    return next(figure for figure in (*UTILITIES, *suite.measure.knowledge) if figure in common)
