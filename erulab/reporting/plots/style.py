"""How every figure looks: matplotlib without a display; colours are told apart by everyone.

Colours: Okabe and Ito's set. Models differ in marker and hatch as well, so that a grey print still reads.
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


def png(make: Callable[..., Figure | None], *arguments: Any) -> bytes | None:
    """A figure made and drawn in our style; None where there is nothing to draw."""
    # `$` in a text is no mathematics, and what a config or model wrote must not raise: parse_math is off.
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = make(*arguments)
        if figure is None:
            return None
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=150, facecolor="white", metadata={"Software": None})
        return out.getvalue()


def title(metric: str) -> str:
    """A metric of attacks.json over a panel."""
    return "Log-odds of the true value" if metric == "log_odds" else metric.replace("_", " ")


def unit(metric: str) -> str:
    """The unit of a metric of attacks.json."""
    return "nats" if metric == "log_odds" else "share"
