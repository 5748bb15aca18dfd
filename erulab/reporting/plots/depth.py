"""Plot of the depth score by layer."""

from __future__ import annotations

from matplotlib.figure import Figure

from erulab.reporting.load import RunResult
from erulab.reporting.numbers import number
from erulab.reporting.plots.style import COLOUR, MARKER, SMALL, Size


def plot_depth(run: RunResult, size: Size) -> Figure | None:
    """Plots by layer what is gone from the unlearned model's states, above the gap that it is a share of."""
    if number(run.scores.get("unlearned", {}).get("uds")) is None or not run.uds:
        return None
    gaps = [number(value) or 0.0 for value in run.uds["gap"]]
    shares = [number(value) for value in run.uds["models"]["unlearned"]["layers"]]
    known = [(layer, share) for layer, share in enumerate(shares, 1) if share is not None]
    layers = range(1, len(gaps) + 1)
    figure = size.new_figure(4.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for value, model in ((0, "target"), (1, "oracle")):
        upper.axhline(value, color=COLOUR[model], linewidth=1, linestyle="--", label=model)
    upper.plot(*zip(*known, strict=True), color=COLOUR["unlearned"], marker=MARKER["unlearned"], label="unlearned")
    upper.set(title="Depth of unlearning", ylabel="share that is gone", ylim=(-0.05, 1.05))
    upper.legend(fontsize=SMALL)
    lower.bar(layers, gaps, color=COLOUR["oracle"], alpha=0.6)
    lower.set(xlabel="layer whose states the target is given", ylabel="oracle's drop,\nnats per token")
    if len(layers) <= 20:
        lower.set_xticks(layers)
    return figure
