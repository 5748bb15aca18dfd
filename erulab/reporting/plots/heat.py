"""Heat map of knowledge left by attack and metric; cells that say nothing about robustness have no colour."""

from __future__ import annotations

from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from erulab.reporting.attack_rows import Standing
from erulab.reporting.attack_tables import heat_map
from erulab.reporting.escape import visible
from erulab.reporting.load import RunResult
from erulab.reporting.numbers import signed
from erulab.reporting.plots.style import COLOUR, SMALL, Size, label_rows, shown_label

MARKS = {Standing.invalid: "×", Standing.undefined: "?", Standing.absent: "!"}
HATCHES = {Standing.invalid: "////", Standing.undefined: "....", Standing.absent: "xxxx"}


def plot_heat_map(run: RunResult, size: Size) -> Figure | None:
    """Plots one row per attack and setting, one column per metric.

    No colour is the oracle's level, orange the target's, blue below the oracle's.
    """
    found = heat_map(run)
    if not found.metrics:
        return None
    figure = size.new_figure(1.6 + (0.6 if size.is_narrow else 0.34) * len(found.rows))
    axes = figure.subplots()
    top = 0.0 if size.is_narrow else -0.5  # of a cell; on a narrow plot its row's label stands above it
    for y, cells in enumerate(found.cells):
        for x, cell in enumerate(cells):
            if cell is None:
                continue
            which, value = cell
            known = which is Standing.counts and value is not None
            # A colour with opacity, not one mixed with white: a page can be dark.
            face = _shade(value) if known and value is not None else to_rgba("#e6e6e6")
            axes.add_patch(
                Rectangle(
                    (x - 0.5, y + top),
                    1,
                    0.5 - top,
                    facecolor=face,
                    edgecolor="#bbbbbb",
                    linewidth=0.5,
                    hatch=None if known else HATCHES[which],
                )
            )
            text = signed(value) if known else MARKS[which]
            axes.text(
                x,
                y + (0.5 + top) / 2,
                text,
                ha="center",
                va="center",
                fontsize=SMALL,
                color="#000000",
                bbox=None if known else {"facecolor": "#ffffff", "edgecolor": "none", "pad": 1.0},
            )
    label_rows(axes, [shown_label(label) for label in found.rows], size)
    names = [visible(name).replace("/", "\n").replace("_", "\n" if size.is_narrow else "_") for name in found.metrics]
    axes.set_xticks(range(len(names)), names, fontsize=SMALL, rotation=90 if len(names) > 2 + 2 * size.beside else 0)
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
        figure.legend(handles=keys, loc="outside lower left", ncols=size.beside, fontsize=SMALL)
    return figure


def _shade(value: float) -> tuple[float, float, float, float]:
    """Returns a cell's colour: nothing at the oracle's level, orange at the target's, blue below the oracle's."""
    red, green, blue, _ = to_rgba(COLOUR["unlearned" if value > 0 else "target"])
    return (red, green, blue, min(abs(value), 1.0) * 0.85)
