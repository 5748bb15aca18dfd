"""Plot of several forget requests, made one after another."""

from __future__ import annotations

from matplotlib.figure import Figure

from erulab.reporting.escape import visible
from erulab.reporting.load import RunResult
from erulab.reporting.numbers import number
from erulab.reporting.plots.style import CYCLE, MARKERS, SMALL, Size
from erulab.reporting.tables import request_figures, request_steps


def plot_requests(run: RunResult, size: Size) -> Figure | None:
    """Plots one line per suite from before the first request to after the last; the oracle stands at the right edge."""
    steps = request_steps(run)
    names = [name for name in request_figures(run) if name != "mia/privleak"]  # in percent, and not a share
    if not steps or not names:
        return None
    figure = size.new_figure(4.4 if size.is_narrow else 3.4)
    axes = figure.subplots()
    for index, name in enumerate(names):
        values = [number(run.scores[model].get(name)) for _, model in steps]
        points = [(place, value) for place, value in enumerate(values) if value is not None]
        colour = CYCLE[index % len(CYCLE)]
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            marker=MARKERS[index % len(MARKERS)],
            linewidth=1.5,
            markersize=5,
            linestyle="-" if index < len(CYCLE) else "--",
            label=visible(name),
        )
        retrained = number(run.scores.get("oracle", {}).get(name))
        if retrained is not None:
            axes.plot([len(steps) - 0.6], [retrained], marker="_", markersize=12, color=colour)
    ticks = [visible(words) for words, _ in steps]
    oracle = ["oracle"] if "oracle" in run.scores else []
    axes.set_xticks([*range(len(steps)), *([len(steps) - 0.6] if oracle else [])], [*ticks, *oracle])
    axes.set(title="Requests one after another", ylabel="share", ylim=(-0.02, 1.04))
    figure.legend(fontsize=SMALL, loc="outside lower left" if size.is_narrow else "outside right upper")
    return figure
