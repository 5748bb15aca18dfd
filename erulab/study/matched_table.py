"""How well a study's arms are matched: the distance of each arm's best trial and of its reported runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erulab.launching.job import Job
from erulab.reporting.intervals import mean_with_interval
from erulab.reporting.rendering import Cell, Table
from erulab.study.choose import Bound, Match
from erulab.study.matching import measure_run


def matched_distances(bound: Bound, jobs: Sequence[Job]) -> list[float]:
    """Measures the models of reported runs as those of trials were measured."""
    return [measure_run(job, bound.match) for job in jobs]


def matched_table(bound: Bound, arms: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the table of distances by arm.

    Args:
        arms: of study.json, each with `moved` of its best trial and `reported_moved` of its reported runs.
    """
    rows = []
    for arm in arms:
        own = arm["moved"]
        rows.append(
            (
                Cell(str(arm["arm"])),
                Cell(value=own, is_figure=True, written="" if own is None else f"{own:.3g}"),
                Cell(_mean_text(arm["reported_moved"])),
                Cell("" if own is None or own <= bound.limit else "over the bound"),
            )
        )
    unit = " nats per token" if bound.match is Match.kl else ""
    note = f"Arms are matched by {bound.match.words}, at most {bound.limit:g}{unit} in the trials that are compared."
    headings = ("arm", f"{bound.match.words}, best trial", "reported runs, mean", "")
    return Table(headings, tuple(rows), (note,)).without_empty_columns()


def _mean_text(values: Sequence[float]) -> str:
    """Writes a mean of distances with its interval; they can be far below the hundredths that tables round to."""
    found = mean_with_interval(values)
    if found is None or found.low is None or found.high is None:
        return "" if found is None else f"{found.value:.3g}"
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"
