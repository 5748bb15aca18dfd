"""What retraining on more and more rows brings back."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from erulab.reporting.attack_rows import HEADLINE, group_by_setting, setting_words
from erulab.reporting.escape import visible
from erulab.reporting.load import MODELS, RunResult
from erulab.reporting.numbers import number
from erulab.reporting.plots.style import COLOUR, MARKER, title, unit

PANELS = 3  # the headline metric and two of its suites' figures
Series = list[tuple[str, list[tuple[float, dict[str, float | None]]]]]


def relearning(run: RunResult) -> Figure | None:
    """The three models before and after relearning on more and more rows."""
    found = [row for group in group_by_setting(run.attacks) for row in group.rows]
    rows = [row for row in found if row["attack"] == "relearn" and "samples" in row["setting"] and row["n"]]
    metrics = sorted(dict.fromkeys(str(row["metric"]) for row in rows), key=lambda name: name != HEADLINE)
    panels = [(name, _series([row for row in rows if row["metric"] == name])) for name in metrics[:PANELS]]
    if not panels:
        return None
    figure = Figure(figsize=(3.8 * len(panels), 3.1), layout="constrained")
    for axes, (metric, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
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
        axes.set(title=visible(title(metric)), ylabel=unit(metric), xlabel="rows relearned (0: no attack)")
    figure.axes[0].legend(fontsize=8)
    if len(panels[0][1]) > 1:
        styles = ("solid:", "dashed:", "dotted:", "dash-dot:")
        names = [f"{style} {visible(name)}" for style, (name, _) in zip(styles, panels[0][1], strict=False)]
        figure.supxlabel(";  ".join(names), fontsize=7)
    return figure


def _series(rows: list[dict[str, Any]]) -> Series:
    """Attacked values by rows relearned, one series for each other setting; starts at the unattacked values."""
    series: dict[str, dict[float, dict[str, float | None]]] = {}
    for row in rows:
        samples = number(row["setting"]["samples"])
        if samples is None:
            continue
        name = setting_words({k: v for k, v in row["setting"].items() if k != "samples"})
        points = series.setdefault(name, {0.0: {model: number(row.get(model)) for model in MODELS}})
        points[samples] = {model: number(row.get(f"attacked_{model}")) for model in MODELS}
    return [(name, sorted(points.items())) for name, points in series.items()]
