"""The style of every plot. matplotlib draws without a display.

The colours are Okabe and Ito's set, which colour-blind readers can tell apart. Models differ in marker and hatch too,
so that a grey print can be read.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure  # noqa: E402  (the backend must be chosen first)

COLOUR = {"target": "#0072B2", "unlearned": "#D55E00", "oracle": "#009E73"}
MARKER = {"target": "s", "unlearned": "o", "oracle": "^"}
HATCH = {"target": "", "unlearned": "", "oracle": "///"}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vPX*<>"
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


def render_png(plot: Callable[..., Figure | None], *arguments: Any) -> bytes | None:
    """Calls a plot function and renders its figure as a PNG; None if it has nothing to draw."""
    # parse_math is off: a `$` in the text of a config or model must neither become mathematics nor raise.
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = plot(*arguments)
        if figure is None:
            return None
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=150, facecolor="white", metadata={"Software": None})
        return out.getvalue()


def metric_title(metric: str) -> str:
    """Names a metric of attacks.json in the title of a panel."""
    return "Log-odds of the true value" if metric == "log_odds" else metric.replace("_", " ")


def metric_unit(metric: str) -> str:
    """Returns the unit of a metric of attacks.json."""
    return "nats" if metric == "log_odds" else "share"
