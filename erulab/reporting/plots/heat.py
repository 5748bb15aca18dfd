"""Heat map of knowledge left by attack and metric; cells that say nothing about robustness have no colour."""

from __future__ import annotations

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from erulab.reporting.attack_rows import Standing
from erulab.reporting.attack_tables import heat_map
from erulab.reporting.escape import visible
from erulab.reporting.load import RunResult
from erulab.reporting.numbers import signed
from erulab.reporting.plots.style import COLOUR

MARKS = {Standing.invalid: "×", Standing.undefined: "?", Standing.absent: "!"}
HATCHES = {Standing.invalid: "////", Standing.undefined: "....", Standing.absent: "xxxx"}
LONGEST = 44  # characters at which a row's label is cut


def plot_heat_map(run: RunResult) -> Figure | None:
    """Plots one row per attack and setting, one column per metric.

    White is the oracle's level, orange the target's, blue below the oracle's.
    """
    found = heat_map(run)
    if not found.metrics:
        return None
    figure = Figure(figsize=(3.6 + 1.25 * len(found.metrics), 1.5 + 0.34 * len(found.rows)), layout="constrained")
    axes = figure.subplots()
    colours = LinearSegmentedColormap.from_list("knowledge", [COLOUR["target"], "#ffffff", COLOUR["unlearned"]])
    for y, cells in enumerate(found.cells):
        for x, cell in enumerate(cells):
            if cell is None:
                continue
            which, value = cell
            known = which is Standing.counts and value is not None
            face = colours((max(-1.0, min(1.0, value)) + 1) / 2) if known and value is not None else "#e6e6e6"
            axes.add_patch(
                Rectangle(
                    (x - 0.5, y - 0.5),
                    1,
                    1,
                    facecolor=face,
                    edgecolor="#bbbbbb",
                    linewidth=0.5,
                    hatch=None if known else HATCHES[which],
                )
            )
            text = signed(value) if known else MARKS[which]
            axes.text(
                x,
                y,
                text,
                ha="center",
                va="center",
                fontsize=8,
                color="#000000",
                bbox=None if known else {"facecolor": "#ffffff", "edgecolor": "none", "pad": 1.0},
            )
    labels = [visible(label) for label in found.rows]
    axes.set_yticks(range(len(labels)), [x if len(x) <= LONGEST else f"{x[: LONGEST - 1]}…" for x in labels])
    axes.set_xticks(range(len(found.metrics)), [visible(name).replace("/", "\n") for name in found.metrics], fontsize=8)
    axes.set(xlim=(-0.5, len(found.metrics) - 0.5), ylim=(len(found.rows) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    marked = {cell[0] for cells in found.cells for cell in cells if cell is not None} - {Standing.counts}
    if marked:
        keys = [
            Patch(facecolor="#e6e6e6", hatch=HATCHES[which], edgecolor="#888888", label=f"{MARKS[which]} {which.mark}")
            for which in MARKS
            if which in marked
        ]
        figure.legend(handles=keys, loc="outside lower left", ncols=3, fontsize=8)
    return figure
