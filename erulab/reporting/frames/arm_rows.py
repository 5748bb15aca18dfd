"""Frames of arms and of paired differences. Runs that differ in world and seed only form an arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from erulab.reporting.arms import Arm, arm_names, group_into_arms
from erulab.reporting.frames.frame import Column, Frame, Value, make_column
from erulab.reporting.frames.run_rows import BESIDE, COUNTS, DRAWN, ENDS, NAMES, Row, main_figures, run_frame
from erulab.reporting.intervals import mean_paired_difference, mean_with_interval
from erulab.reporting.load import RunResult
from erulab.reporting.shown_figures import figures_worth_showing
from erulab.reporting.tables import FIGURES

Draws = dict[str, float]  # world and seed as JSON -> value
OF_RUNS = ("run", "folder", "verdict", "collapsed", "attack/worst/name", *DRAWN)  # columns that no arm has


def arm_frame(runs: Sequence[RunResult]) -> Frame:
    """Returns one row per arm: its settings, and the mean of each figure over its runs.

    A figure `x` has its 95 % t-interval in `x_low` and `x_high`, and the number of runs that have it in `x_n`.
    """
    frame = run_frame(runs)
    arms = group_into_arms(runs)
    draws = [_draw_places(arm, runs) for arm in arms]
    first = [next(iter(places.values()))[0] for places in draws]
    estimates = _estimates(frame)
    columns: dict[str, Column] = {
        "arm": make_column(arm_names(arms)),
        "runs": make_column(len(arm.draws) for arm in arms),
    }
    settings = [
        name
        for name, one in frame.columns.items()
        if not one.is_figure and not name.endswith(COUNTS) and name not in OF_RUNS
    ]
    for name in settings:
        columns[name] = make_column(frame.columns[name].values[place] for place in first)
    shares = [name for name in estimates if name == "utility_kept"]
    for name in estimates:
        columns |= _means(name, [_by_draw(places, frame.columns[name].values) for places in draws], name in shares)
    differing = [name for name in settings if name in NAMES or name in frame.shown]
    shown = ("arm", "runs", *differing, *(name for name in columns if name not in ("arm", "runs", *settings)))
    return Frame(columns, shown, ("arm", "runs", *main_figures(columns)))


def difference_frame(runs: Sequence[RunResult]) -> Frame:
    """Returns one row per arm and figure: the arm minus the first arm, paired by world and seed.

    `conclusion` is `higher`, `lower` or `not distinguishable` (the 95 % t-interval contains 0); null with fewer than
    two pairs.
    """
    frame, arms = run_frame(runs), group_into_arms(runs)
    names, draws = arm_names(arms), [_draw_places(arm, runs) for arm in arms]
    rows: list[Row] = []
    for figure in _compared(frame, runs):
        values = frame.columns[figure].values
        baseline = _by_draw(draws[0], values)
        for name, places in zip(names[1:], draws[1:], strict=True):
            found = mean_paired_difference(_by_draw(places, values), baseline)
            row: Row = {"arm": name, "minus": names[0], "figure": figure, "conclusion": None}
            if found is not None:
                row |= {"difference": found.value, "difference_low": found.low, "difference_high": found.high}
                row |= {"pairs": found.n}
                if found.holds_zero is not None:
                    row["conclusion"] = (
                        "not distinguishable" if found.holds_zero else "higher" if found.value > 0 else "lower"
                    )
            rows.append(row)
    rows.sort(key=lambda row: names.index(row["arm"]))
    figures = ("difference", "difference_low", "difference_high")
    keys = ("arm", "minus", "figure", *figures, "pairs", "conclusion")
    columns = {key: make_column((row.get(key) for row in rows), is_figure=key in figures) for key in keys}
    return Frame(columns, keys, ("arm", "figure", "difference", "pairs", "conclusion"))


def _estimates(frame: Frame) -> list[str]:
    return [name for name, one in frame.columns.items() if one.is_figure and not name.endswith(BESIDE)]


def _compared(frame: Frame, runs: Sequence[RunResult]) -> list[str]:
    """Returns the figures of which there are differences: those of the verdict, and those of the comparison's table."""
    few = [name for _, name in FIGURES]
    worth = {
        name
        for run in runs
        for name in figures_worth_showing(
            run.scores, few, run.config.get("benchmark") or (), every=bool(run.checkpoint)
        )
    }
    return [name for name in _estimates(frame) if name in worth or name in main_figures(frame.columns)]


def _draw_places(arm: Arm, runs: Sequence[RunResult]) -> dict[str, list[int]]:
    """Maps each world and seed of an arm to the places of its runs in the frame."""
    places = {id(run): place for place, run in enumerate(runs)}
    return {draw: [places[id(run)] for run in own] for draw, own in arm.draws.items()}


def _by_draw(places: Mapping[str, Sequence[int]], values: Sequence[Value]) -> Draws:
    """Maps each world and seed that has a value to it; runs of one draw are no independent values, and count once."""
    found: Draws = {}
    for draw, own in places.items():
        known = [float(value) for place in own if (value := values[place]) is not None]
        if known:
            found[draw] = math.fsum(known) / len(known)
    return found


def _means(name: str, draws: Sequence[Mapping[str, float]], is_share: bool) -> dict[str, Column]:
    means = [mean_with_interval(list(one.values())) for one in draws]
    if is_share:
        means = [None if mean is None else mean.as_share() for mean in means]
    values = {
        name: [None if mean is None else mean.value for mean in means],
        f"{name}{ENDS[0]}": [None if mean is None else mean.low for mean in means],
        f"{name}{ENDS[1]}": [None if mean is None else mean.high for mean in means],
    }
    columns = {key: make_column(value, is_figure=True) for key, value in values.items()}
    columns[f"{name}_n"] = make_column(0 if mean is None else mean.n for mean in means)
    return columns


def arm_notes(rows: str) -> tuple[str, ...]:
    """Returns what a reader must know of a table of arms or of differences."""
    means = "Means over runs of other worlds and seeds with 95 % t-intervals"
    if rows == "differences":
        return (f"{means}, paired by world and seed. One in twenty such intervals excludes 0 by chance alone.",)
    return (f"{means}; (n): runs that have the figure. The interval of a share ends at 0 and 1.",)
