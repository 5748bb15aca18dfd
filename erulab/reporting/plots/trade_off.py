"""Plot of knowledge left against utility, over runs and their arms."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from erulab.evaluation.equivalence import LEAST_UTILITY, Bounds, Outcome
from erulab.reporting.arms import Arm, distinguishing_parts, draw_values, group_into_arms, short_arm_names
from erulab.reporting.intervals import mean_with_interval
from erulab.reporting.load import RunResult
from erulab.reporting.plots.style import COLOUR, CYCLE, MARKERS, SMALL, Size, shown_label
from erulab.reporting.utility import COLLAPSE
from erulab.reporting.verdict import Verdict, judge_run, margin_of

MOST_ARMS = len(CYCLE)  # with more arms than colours, one of the settings that differ has the colours
FIGURES = ("knowledge", "utility")
Span = tuple[float, float, float]  # value, low, high


def plot_trade_off(runs: Sequence[RunResult], size: Size) -> Figure | None:
    """Plots one point per arm, with the runs of the arm around it; the best place is no knowledge left, full utility.

    Bars: of an arm's mean over worlds and seeds, the 95 % t-interval, and for two of them the values themselves; of a
    single run, its own 95 % interval.
    """
    arms = [arm for arm in (_with_both_figures(arm) for arm in group_into_arms(runs)) if arm is not None]
    if not arms:
        return None
    figure = size.new_figure(4.8 if size.is_narrow else 4.4)
    axes = figure.subplots()
    margin = margin_of(runs[0])
    axes.axvspan(-margin, margin, color=COLOUR["oracle"], alpha=0.15, linewidth=0, label="within the margin")
    axes.axhline(LEAST_UTILITY, color="#888888", linewidth=0.8, linestyle=(0, (4, 3)))
    named: set[str] = set()
    known: list[float] = []
    kept: list[float] = []
    for arm, (label, place) in zip(arms, _colour_groups(arms), strict=True):
        colour, marker = CYCLE[place % len(CYCLE)], MARKERS[place % len(MARKERS)]
        x, y = (_span(arm, figure_name) for figure_name in FIGURES)
        if len(arm.draws) > 1:
            values = [[_value(judge_run(run), name) for name in FIGURES] for run in arm.runs]
            axes.plot(*zip(*values, strict=True), marker, color=colour, markersize=4, alpha=0.4, linewidth=0)
        axes.plot([x[1], x[2]], [y[0], y[0]], color=colour, linewidth=1.3, alpha=0.7)
        axes.plot([x[0], x[0]], [y[1], y[2]], color=colour, linewidth=1.3, alpha=0.7)
        axes.plot(
            [x[0]],
            [y[0]],
            marker,
            color=colour,
            markersize=8,
            markeredgecolor="#ffffff",
            markeredgewidth=0.6,
            label=None if label in named else shown_label(label) or "?",
        )
        named.add(label)
        known += x
        kept += y
    least, most = min(-0.25, *known) - 0.05, max(1.05, *known) + 0.05
    # A very wide interval must not press everything else into a point.
    axes.set_xlim(max(-1.5, least), min(2.5, most))
    axes.set_ylim(max(0.0, min(0.75, *kept) - 0.05), min(1.6, max(1.05, *kept) + 0.03))
    if axes.get_ylim()[0] < COLLAPSE:
        axes.axhspan(0, COLLAPSE, color="#888888", alpha=0.12, linewidth=0, label="collapsed")
    axes.set(
        xlabel="knowledge left (0: oracle, 1: target)",
        ylabel="utility kept (share of the target's)",
        title="Forgetting and utility",
    )
    figure.legend(fontsize=SMALL, loc="outside lower left" if size.is_narrow else "outside right upper")
    return figure


def _with_both_figures(arm: Arm) -> Arm | None:
    """Returns the arm with the runs that have both figures; None without any."""
    known = tuple(run for run in arm.runs if None not in (_value(judge_run(run), name) for name in FIGURES))
    return Arm(arm.config, known) if known else None


def _span(arm: Arm, figure: str) -> Span:
    """Returns an arm's mean of `knowledge` or `utility`, and the ends of its bar."""
    values = draw_values(arm, lambda run: _value(judge_run(run), figure))
    mean = mean_with_interval(values)
    assert mean is not None  # every run of the arm has the figure
    if mean.n == 1:
        judged = judge_run(arm.runs[0])
        own: Bounds | None = judged.forgetting.left if figure == "knowledge" else judged.utility.share
        if len(arm.runs) > 1:  # copies of one run, or other engines: the interval of one is not that of their mean
            own = None
        return (mean.value, mean.value, mean.value) if own is None else (mean.value, own.low, own.high)
    if mean.n == 2 or mean.low is None or mean.high is None:
        return mean.value, min(values), max(values)
    return mean.value, mean.low, mean.high


def _value(judged: Verdict, figure: str) -> float | None:
    if figure == "utility":
        return judged.utility.ratio
    return None if judged.forgetting.outcome is Outcome.unmeasurable else judged.forgetting.value


def _colour_groups(arms: Sequence[Arm]) -> list[tuple[str, int]]:
    """Returns each arm's label in the legend and the place of its colour.

    Every arm has its own colour if there are enough. Otherwise the colours show the first thing that differs between
    arms and that there are enough colours for.
    """
    names = short_arm_names(arms)
    if len(arms) <= MOST_ARMS:
        return [(name, place) for place, name in enumerate(names)]
    parts = distinguishing_parts(arms)
    for key in dict.fromkeys(key for own in parts for key in own):
        values = list(dict.fromkeys(own.get(key, "other") for own in parts))
        if 1 < len(values) <= MOST_ARMS:
            shown = [own.get(key, "other") for own in parts]
            return [(f"{key}={value}", values.index(value)) for value in shown]
    methods = list(dict.fromkeys(arm.runs[0].made_by for arm in arms))
    return [(arm.runs[0].made_by, methods.index(arm.runs[0].made_by)) for arm in arms]
