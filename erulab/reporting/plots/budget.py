"""Plots of the knowledge that attacks bring back, by the attacker's budget."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from erulab.reporting.budget import BUDGETS, LearningCurve, attack_costs, best_by_cost, learning_curves
from erulab.reporting.escape import visible
from erulab.reporting.load import MODELS, RunResult
from erulab.reporting.plots.style import (
    COLOUR,
    CYCLE,
    MARKER,
    MARKERS,
    SMALL,
    Size,
    metric_title,
    metric_unit,
    shown_label,
)
from erulab.reporting.verdict import judge_run

UNITS = {"flops": "the attacker's cost, FLOPs", "seconds": "the attacker's cost, s"}
LINES = ("-", "--", ":", "-.")
PANELS = 4  # at most this many learning curves side by side


def plot_budget(run: RunResult, size: Size) -> Figure | None:
    """Plots knowledge left after each valid setting and attempt against its cost, and the highest up to each cost."""
    found = {budget: attack_costs(run.attacks, budget) for budget in BUDGETS}
    drawn = [budget for budget in BUDGETS if len({point.cost for point in found[budget]}) > 1]
    if not drawn:
        return None
    before = judge_run(run).worst.before
    labels = list(dict.fromkeys(point.label for budget in drawn for point in found[budget]))
    figure, panels = size.new_panels(len(drawn), 3.4)
    for axes, budget in zip(panels, drawn, strict=True):
        points = found[budget]
        for place, label in enumerate(labels):
            own = [point for point in points if point.label == label]
            axes.plot(
                [point.cost for point in own],
                [point.value for point in own],
                MARKERS[place % len(MARKERS)],
                color=CYCLE[place % len(CYCLE)],
                markersize=5,
                alpha=0.8,
                label=shown_label(label),
            )
        best = best_by_cost((point.cost, point.value) for point in points)
        last = max(point.cost for point in points)
        costs, values = [*(cost for cost, _ in best), last], [*(value for _, value in best), best[-1][1]]
        axes.step(costs, values, where="post", color="#000000", linewidth=1.6, label="best so far")
        if before is not None:
            axes.axhline(before, color=COLOUR["unlearned"], linewidth=1, linestyle=":", label="no attack")
        _set_cost_scale(axes, [point.cost for point in points])
        axes.set(xlabel=UNITS[budget], ylabel="knowledge left after the attack")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", ncols=size.beside, fontsize=SMALL)
    figure.suptitle("What an attacker brings back for its budget", x=0.01, ha="left", fontsize=10, fontweight="bold")
    return figure


def _set_cost_scale(axes: Axes, costs: Sequence[float]) -> None:
    """Sets a logarithmic cost axis; it is linear below the smallest positive cost if an attack costs nothing."""
    positive = [cost for cost in costs if cost > 0]
    axes.margins(x=0.08)
    if len(positive) == len(costs):
        axes.set_xscale("log")
    else:
        axes.set_xscale("symlog", linthresh=min(positive))
    # matplotlib's own labels need its mathematics parser, which the style turns off.
    axes.xaxis.set_major_formatter(lambda cost, _: f"{cost:.0e}".replace("e+", "e") if cost else "0")
    axes.xaxis.set_minor_formatter(NullFormatter())


def plot_learning_curves(run: RunResult, size: Size) -> Figure | None:
    """Plots the three models against the attacker's steps, for attacks that tried several numbers of steps."""
    by_attack: dict[str, list[LearningCurve]] = {}
    for course in learning_curves(run.attacks):
        by_attack.setdefault(f"{course.label.split(' ')[0]}: {metric_title(course.metric)}", []).append(course)
    if not by_attack:
        return None
    panels = list(by_attack.items())[:PANELS]
    figure, axes_of = size.new_panels(len(panels), 3.4)
    for axes, (heading, found) in zip(axes_of, panels, strict=True):
        for line, course in zip(LINES, found, strict=False):
            for model in MODELS:
                points = [
                    (step, value)
                    for step, value in zip(course.steps, course.figures[model], strict=True)
                    if value is not None
                ]
                if points:
                    words = course.label.partition(" ")[2] + ("" if course.valid else " (not valid)")
                    axes.plot(
                        *zip(*points, strict=True),
                        line,
                        marker=MARKER[model],
                        color=COLOUR[model],
                        linewidth=1.5,
                        markersize=4,
                        label=visible(f"{model} {words}".rstrip()),
                    )
        shown = "" if len(found) <= len(LINES) else f" ({len(LINES)} of {len(found)} curves)"
        axes.set(title=visible(heading) + shown, xlabel="the attacker's steps", ylabel=metric_unit(found[0].metric))
        axes.legend(fontsize=SMALL)
    return figure
