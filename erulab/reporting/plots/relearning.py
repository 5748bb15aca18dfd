"""Plot of the knowledge that relearning brings back, by the number of rows relearned."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.figure import Figure

from erulab.reporting.attack_rows import HEADLINE, group_by_setting, setting_words
from erulab.reporting.escape import visible
from erulab.reporting.load import MODELS, RunResult
from erulab.reporting.numbers import number
from erulab.reporting.plots.style import COLOUR, MARKER, SMALL, Size, metric_title, metric_unit

PANELS = 3  # the headline metric and two figures of single suites
Series = list[tuple[str, list[tuple[float, dict[str, float | None]]]]]


def plot_relearning(run: RunResult, size: Size) -> Figure | None:
    """Plots the three models before and after relearning, by the number of rows relearned."""
    found = [row for group in group_by_setting(run.attacks) for row in group.rows]
    rows = [row for row in found if row["attack"] == "relearn" and "samples" in row["setting"] and row["n"]]
    metrics = sorted(dict.fromkeys(str(row["metric"]) for row in rows), key=lambda name: name != HEADLINE)
    panels = [(name, _relearning_series([row for row in rows if row["metric"] == name])) for name in metrics[:PANELS]]
    if not panels:
        return None
    figure, axes_of = size.new_panels(len(panels), 3.1)
    for axes, (metric, series) in zip(axes_of, panels, strict=True):
        ticks = sorted({0} | {x for _, points in series for x, _ in points})
        for line, (_, points) in zip(("-", "--", ":", "-."), series, strict=False):
            for model in MODELS:
                drawn = [(ticks.index(x), values[model]) for x, values in points if values[model] is not None]
                if drawn:
                    axes.plot(
                        *zip(*drawn, strict=True),
                        line,
                        marker=MARKER[model],
                        color=COLOUR[model],
                        linewidth=1.6,
                        label=model if line == "-" else None,
                    )
        axes.set_xticks(range(len(ticks)), ["0" if x == 0 else f"{x:g}" for x in ticks])
        axes.set(
            title=visible(metric_title(metric)), ylabel=metric_unit(metric), xlabel="rows relearned (0: no attack)"
        )
    figure.axes[0].legend(fontsize=SMALL)
    if len(panels[0][1]) > 1:
        styles = ("solid:", "dashed:", "dotted:", "dash-dot:")
        names = [f"{style} {visible(name)}" for style, (name, _) in zip(styles, panels[0][1], strict=False)]
        figure.supxlabel(textwrap.fill(";  ".join(names), 58 if size.is_narrow else 130), fontsize=SMALL)
    return figure


def _relearning_series(rows: list[dict[str, Any]]) -> Series:
    """Groups the rows by their settings other than `samples`: one series per group, from 0 rows (no attack) on."""
    series: dict[str, dict[float, dict[str, float | None]]] = {}
    for row in rows:
        samples = number(row["setting"]["samples"])
        if samples is None:
            continue
        name = setting_words({k: v for k, v in row["setting"].items() if k != "samples"})
        points = series.setdefault(name, {0.0: {model: number(row.get(model)) for model in MODELS}})
        points[samples] = {model: number(row.get(f"attacked_{model}")) for model in MODELS}
    return [(name, sorted(points.items())) for name, points in series.items()]
