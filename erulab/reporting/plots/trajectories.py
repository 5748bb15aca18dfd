"""Plot of knowledge left against utility along unlearning."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from erulab.reporting.escape import visible
from erulab.reporting.kept_step import read_kept_step
from erulab.reporting.load import RunResult
from erulab.reporting.plots.style import COLOUR, CYCLE, MARKERS, SMALL, Size
from erulab.reporting.trajectories import Point, run_trajectory
from erulab.reporting.verdict import margin_of


def plot_trajectories(runs: Sequence[RunResult], size: Size) -> Figure | None:
    """Plots one line per run and one colour per method, from before training (right) on; a large mark: the result."""
    found = [(run, points) for run in runs if len(points := run_trajectory(run)) > 1]
    if not found:
        return None
    figure = size.new_figure(4.2)
    axes = figure.subplots()
    margin = margin_of(runs[0])
    axes.axvspan(-margin, margin, color=COLOUR["oracle"], alpha=0.15, linewidth=0, label="within the margin")
    methods = list(dict.fromkeys(run.made_by for run, _ in found))
    named: set[str] = set()
    for run, points in found:
        place = methods.index(run.made_by)
        colour, marker = CYCLE[place % len(CYCLE)], MARKERS[place % len(MARKERS)]
        know, kept = [point.knowledge for point in points], [point.utility for point in points]
        label = None if run.made_by in named else visible(run.made_by) or "?"
        axes.plot(know, kept, color=colour, linewidth=1.2, marker=".", markersize=4, alpha=0.8, label=label)
        end = _kept_point(run, points)
        axes.plot([end.knowledge], [end.utility], marker, color=colour, markersize=8, markeredgecolor="white")
        if len(found) == 1:
            for point in points:
                axes.annotate(
                    str(point.step),
                    (point.knowledge, point.utility),
                    xytext=(3, 4),
                    textcoords="offset points",
                    fontsize=SMALL,
                )
        named.add(run.made_by)
    axes.set(
        xlabel="knowledge left (0: oracle, 1: target)",
        ylabel="utility kept (share of the target's)",
        title="Along unlearning" + (", by step" if len(found) == 1 else ""),
    )
    axes.legend(fontsize=SMALL, loc="lower right")
    return figure


def _kept_point(run: RunResult, points: Sequence[Point]) -> Point:
    """Returns the point of the model that the run kept: the last one, unless another step was the best."""
    kept = read_kept_step(run.scores.get("unlearned", {}))
    return next((point for point in points if kept is not None and point.step == kept.step), points[-1])
