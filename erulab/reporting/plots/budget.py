"""What attackers get for what they spend."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from erulab.reporting.budget import BUDGETS, Course, courses, envelope, spent
from erulab.reporting.escape import visible
from erulab.reporting.load import MODELS, RunResult
from erulab.reporting.plots.style import COLOUR, CYCLE, MARKER, MARKERS, title, unit
from erulab.reporting.verdict import verdict

UNITS = {"flops": "FLOPs of the attacker", "seconds": "seconds of the attacker"}
LINES = ("-", "--", ":", "-.")
PANELS = 4  # learning curves side by side


def best_so_far(run: RunResult) -> Figure | None:
    """Each setting and attempt that counts by its cost, and the best K that an attacker with that budget can have."""
    found = {budget: spent(run.attacks, budget) for budget in BUDGETS}
    drawn = [budget for budget in BUDGETS if len({point.cost for point in found[budget]}) > 1]
    if not drawn:
        return None
    before = verdict(run).worst.before
    labels = list(dict.fromkeys(point.label for budget in drawn for point in found[budget]))
    figure = Figure(figsize=(4.4 * len(drawn), 3.4), layout="constrained")
    for axes, budget in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
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
                label=visible(label),
            )
        best = envelope((point.cost, point.value) for point in points)
        last = max(point.cost for point in points)
        costs, values = [*(cost for cost, _ in best), last], [*(value for _, value in best), best[-1][1]]
        axes.step(costs, values, where="post", color="#000000", linewidth=1.6, label="best so far")
        if before is not None:
            axes.axhline(before, color=COLOUR["unlearned"], linewidth=1, linestyle=":", label="no attack")
        _scale(axes, [point.cost for point in points])
        axes.set(xlabel=UNITS[budget], ylabel="K after the attack")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=7)
    figure.suptitle("What an attacker can have for a budget", x=0.01, ha="left", fontsize=10, fontweight="bold")
    return figure


def _scale(axes: Axes, costs: Sequence[float]) -> None:
    """Powers of ten; where an attack runs no model and costs nothing, linear below the least that any other costs."""
    positive = [cost for cost in costs if cost > 0]
    axes.margins(x=0.08)
    if len(positive) == len(costs):
        axes.set_xscale("log")
    else:
        axes.set_xscale("symlog", linthresh=min(positive))
    # matplotlib's own labels are mathematics, which the style turns off.
    axes.xaxis.set_major_formatter(lambda cost, _: f"{cost:.0e}".replace("e+", "e") if cost else "0")
    axes.xaxis.set_minor_formatter(NullFormatter())


def learning(run: RunResult) -> Figure | None:
    """The three models along the steps of attacks that tried several numbers of them."""
    by_attack: dict[str, list[Course]] = {}
    for course in courses(run.attacks):
        by_attack.setdefault(f"{course.label.split(' ')[0]}: {title(course.metric)}", []).append(course)
    if not by_attack:
        return None
    panels = list(by_attack.items())[:PANELS]
    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    for axes, (heading, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
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
        axes.set(title=visible(heading) + shown, xlabel="the attacker's steps", ylabel=unit(found[0].metric))
        axes.legend(fontsize=7)
    return figure
