"""The plots of a report, one file each. matplotlib is imported here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from erulab.reporting.load import RunResult
from erulab.reporting.plots.budget import plot_budget, plot_learning_curves
from erulab.reporting.plots.depth import plot_depth
from erulab.reporting.plots.heat import plot_heat_map
from erulab.reporting.plots.knowledge import plot_knowledge
from erulab.reporting.plots.relearning import plot_relearning
from erulab.reporting.plots.requests import plot_requests
from erulab.reporting.plots.robustness import plot_robustness
from erulab.reporting.plots.style import NARROW, WIDE, Size, render_png, styled
from erulab.reporting.plots.svg import render_svg
from erulab.reporting.plots.trade_off import plot_trade_off
from erulab.reporting.plots.training import plot_training
from erulab.reporting.plots.trajectories import plot_trajectories

Plot = Callable[[Any, Size], Figure | None]  # draws a run, or several; None without the numbers for it
# File stem -> function that draws it, in the order of the report.
RUN_PLOTS: dict[str, Plot] = {
    "robustness": plot_robustness,
    "heat": plot_heat_map,
    "knowledge": plot_knowledge,
    "depth": plot_depth,
    "requests": plot_requests,
    "relearning": plot_relearning,
    "learning": plot_learning_curves,
    "budget": plot_budget,
    "trajectory": lambda run, size: plot_trajectories([run], size),
    "training": plot_training,
}
COMPARISON_PLOTS: dict[str, Plot] = {"trade_off": plot_trade_off, "trajectories": plot_trajectories}


@dataclass(frozen=True)
class Drawing:
    """A plot in a page, for wide and for narrow screens (`<svg>` elements), and as a file, if one was asked for."""

    wide: Markup
    narrow: Markup
    png: bytes = b""


def run_images(run: RunResult) -> dict[str, bytes]:
    """Draws each plot that the run's files have the numbers for: file stem -> PNG."""
    return {stem: image for stem in RUN_PLOTS if (image := _image(RUN_PLOTS[stem], run)) is not None}


def comparison_image(stem: str, runs: Sequence[RunResult]) -> bytes | None:
    """Draws one plot over several runs as a PNG; None if they lack the numbers for it."""
    return _image(COMPARISON_PLOTS[stem], runs)


def run_drawings(run: RunResult, labels: Mapping[str, str], *, files: bool) -> dict[str, Drawing]:
    """Draws each plot that the run's files have the numbers for: stem -> drawing.

    Args:
        labels: stem -> what the plot shows, for a reader who cannot see it.
        files: with its PNG.
    """
    return _drawings(RUN_PLOTS, run, labels, files=files)


def comparison_drawings(runs: Sequence[RunResult], labels: Mapping[str, str]) -> dict[str, Drawing]:
    """Draws each plot over several runs that they have the numbers for, without files: stem -> drawing."""
    return _drawings(COMPARISON_PLOTS, runs, labels, files=False)


def _image(plot: Plot, subject: Any) -> bytes | None:
    with styled():
        figure = plot(subject, WIDE)
        return None if figure is None else render_png(figure)


def _drawings(plots: Mapping[str, Plot], subject: Any, labels: Mapping[str, str], *, files: bool) -> dict[str, Drawing]:
    found = {}
    with styled():
        for stem, plot in plots.items():
            wide, narrow = plot(subject, WIDE), plot(subject, NARROW)
            if wide is None or narrow is None:
                continue
            png = render_png(wide) if files else b""
            if files:
                wide.set_layout_engine("none")  # it is laid out already
            elements = [render_svg(figure, labels[stem], f"{stem}-{i}") for i, figure in enumerate((wide, narrow))]
            found[stem] = Drawing(elements[0], elements[1], png)
    return found
