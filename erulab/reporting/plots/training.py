"""Plot of the unlearning run, step by step."""

from __future__ import annotations

from matplotlib.figure import Figure

from erulab.reporting.load import RunResult
from erulab.reporting.numbers import number
from erulab.reporting.plots.style import SMALL, Size


def plot_training(run: RunResult, size: Size) -> Figure | None:
    """Plots losses, forget depth and the adversary's gain over the steps of unlearning."""
    known: list[tuple[str, str, list[tuple[str, str, str]]]] = [
        ("Loss", "loss, nats", [("forget_loss", "forget", "#D55E00"), ("retain_loss", "retain", "#0072B2")]),
        (
            "Forget rows",
            "nats per token",
            [
                ("method/nll", "NLL", "#D55E00"),
                ("method/depth", "depth (NLL minus the target's)", "#CC79A7"),
            ],
        ),
        ("Adversary", "nats per token", [("adversary/gain", "decrease of the NLL", "#000000")]),
    ]
    drawn = [panel for panel in known if any(_read_curve(run, key)[0] for key, _, _ in panel[2])]
    if not drawn:
        return None
    figure, panels = size.new_panels(len(drawn), 2.7)
    for axes, (title, unit, lines) in zip(panels, drawn, strict=True):
        for key, label, colour in lines:
            steps, values = _read_curve(run, key)
            if steps:
                axes.plot(
                    steps, values, color=colour, label=label, linewidth=1.5, marker="." if len(steps) < 30 else ""
                )
        axes.set(title=title, xlabel="optimizer step", ylabel=unit)
        axes.legend(fontsize=SMALL)
    return figure


def _read_curve(run: RunResult, key: str) -> tuple[list[float], list[float]]:
    pairs = [(float(row["step"]), value) for row in run.metrics if (value := number(row.get(key))) is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]
