"""The style and the sizes of every plot. matplotlib draws without a display.

The colours are Okabe and Ito's set, which colour-blind readers can tell apart. Models differ in marker and hatch too,
so that a grey print can be read.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes  # noqa: E402  (the backend must be chosen first)
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from erulab.reporting.escape import visible  # noqa: E402

COLOUR = {"target": "#0072B2", "unlearned": "#D55E00", "oracle": "#009E73"}
MARKER = {"target": "s", "unlearned": "o", "oracle": "^"}
HATCH = {"target": "", "unlearned": "", "oracle": "///"}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vPX*<>"
LONGEST = 46  # characters of a label
SMALL = 8  # the smallest font, points; a page shows a point as 1.33 pixels
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Size:
    """The room that a plot has.

    width: inches.
    beside: panels that stand beside each other.
    """

    width: float
    beside: int

    @property
    def is_narrow(self) -> bool:
        return self.beside == 1

    def new_figure(self, height: float) -> Figure:
        """Returns an empty figure of the whole width.

        Args:
            height: inches.
        """
        return Figure(figsize=(self.width, height), layout="constrained")

    def new_panels(self, count: int, height: float) -> tuple[Figure, list[Axes]]:
        """Returns a figure with `count` panels, as many beside each other as there is room for.

        Args:
            height: of one panel, inches.
        """
        columns = min(count, self.beside)
        rows = -(-count // columns)
        figure = self.new_figure(height * rows)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for empty in axes[count:]:
            empty.set_visible(False)
        return figure, list(axes[:count])


WIDE = Size(8.4, 3)  # 806 pixels of a page: a screen, and a sheet of paper
NARROW = Size(3.5, 1)  # 336 pixels: a phone


def label_rows(axes: Axes, labels: Sequence[str], size: Size) -> None:
    """Labels rows at y = 0, 1, ...: left of the axes, or above each row if there is no room at its left."""
    if not size.is_narrow:
        axes.set_yticks(range(len(labels)), labels)
        return
    axes.set_yticks([])
    for place, label in enumerate(labels):
        # Left of the axes stands nothing, so the label may begin at their edge.
        where = (0.0, place - 0.5)
        axes.annotate(
            label, where, xycoords=axes.get_yaxis_transform(), xytext=(1, -1), textcoords="offset points",
            ha="left", va="top", fontsize=SMALL,
        )  # fmt: skip


def styled() -> AbstractContextManager[None]:
    """Applies the style to the plots that are made and rendered within."""
    # parse_math is off: a `$` in the text of a config or model must neither become mathematics nor raise.
    return matplotlib.rc_context(STYLE)  # type: ignore[arg-type]


def render_png(figure: Figure) -> bytes:
    """Renders a figure as a PNG on white."""
    out = io.BytesIO()
    figure.set_dpi(150)
    # Not `savefig`, which draws every figure twice.
    FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})
    return out.getvalue()


def shown_label(text: str) -> str:
    """Returns a label as a plot shows it: made visible, and cut if it is long."""
    label = visible(text)
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"


def metric_title(metric: str) -> str:
    """Names a metric of attacks.json in the title of a panel."""
    return "Log-odds of the true value" if metric == "log_odds" else metric.replace("_", " ")


def metric_unit(metric: str) -> str:
    """Returns the unit of a metric of attacks.json."""
    return "nats" if metric == "log_odds" else "share"
