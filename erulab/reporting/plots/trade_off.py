"""Plot of knowledge left against utility, over runs."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from erulab.reporting.escape import visible
from erulab.reporting.load import RunResult
from erulab.reporting.plots.style import COLOUR, CYCLE, MARKERS
from erulab.reporting.verdict import judge_run, margin_of


def plot_trade_off(runs: Sequence[RunResult]) -> Figure | None:
    """Plots one point per run; the best place is at no knowledge left and full utility."""
    points = [(run, judged) for run in runs if (judged := judge_run(run)).forgetting.value is not None]
    points = [(run, judged) for run, judged in points if judged.utility.ratio is not None]
    if not points:
        return None
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    margin = margin_of(runs[0])
    axes.axvspan(-margin, margin, color=COLOUR["oracle"], alpha=0.15, linewidth=0, label="within the margin")
    methods = list(dict.fromkeys(run.made_by for run, _ in points))
    named: set[str] = set()
    for run, judged in points:
        method, f, ratio = run.made_by, judged.forgetting, judged.utility.ratio
        if f.left is None or ratio is None:
            continue
        colour, marker = CYCLE[methods.index(method) % len(CYCLE)], MARKERS[methods.index(method) % len(MARKERS)]
        axes.plot([f.left.low, f.left.high], [ratio, ratio], color=colour, linewidth=1.2, alpha=0.6)
        axes.plot(
            [f.left.value],
            [ratio],
            marker,
            color=colour,
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.6,
            label=None if method in named else visible(method) or "?",
        )
        named.add(method)
    axes.set(
        xlabel="knowledge left (0: as the oracle, 1: as the target); bars: 95 % interval",
        ylabel="utility kept (share of the target's)",
        title="Forgetting and utility",
    )
    axes.set_ylim(0, max(1.05, *(judged.utility.ratio or 0 for _, judged in points)) + 0.02)
    axes.legend(fontsize=8, loc="lower right")
    return figure
