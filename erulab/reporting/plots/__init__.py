"""The plots of a report, one file each. matplotlib is imported here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from erulab.reporting.load import RunResult
from erulab.reporting.plots import style
from erulab.reporting.plots.budget import plot_budget, plot_learning_curves
from erulab.reporting.plots.depth import plot_depth
from erulab.reporting.plots.heat import plot_heat_map
from erulab.reporting.plots.knowledge import plot_knowledge
from erulab.reporting.plots.relearning import plot_relearning
from erulab.reporting.plots.requests import plot_requests
from erulab.reporting.plots.robustness import plot_robustness
from erulab.reporting.plots.trade_off import plot_trade_off
from erulab.reporting.plots.training import plot_training
from erulab.reporting.plots.trajectories import plot_trajectories

# File stem -> function that draws it, in the order of the report.
RUN_PLOTS: dict[str, Callable[[RunResult], Figure | None]] = {
    "robustness": plot_robustness,
    "heat": plot_heat_map,
    "knowledge": plot_knowledge,
    "depth": plot_depth,
    "requests": plot_requests,
    "relearning": plot_relearning,
    "learning": plot_learning_curves,
    "budget": plot_budget,
    "trajectory": lambda run: plot_trajectories([run]),
    "training": plot_training,
}
COMPARISON_PLOTS: dict[str, Callable[[Sequence[RunResult]], Figure | None]] = {
    "trade_off": plot_trade_off,
    "trajectories": plot_trajectories,
}


def run_images(run: RunResult) -> dict[str, bytes]:
    """Draws each plot that the run's files have the numbers for: file stem -> PNG."""
    return {stem: image for stem, plot in RUN_PLOTS.items() if (image := style.render_png(plot, run)) is not None}


def comparison_images(runs: Sequence[RunResult]) -> dict[str, bytes]:
    """Draws each plot over several runs that they have the numbers for: stem -> PNG."""
    return {stem: image for stem in COMPARISON_PLOTS if (image := comparison_image(stem, runs)) is not None}


def comparison_image(stem: str, runs: Sequence[RunResult]) -> bytes | None:
    """Draws one plot over several runs as a PNG; None if they lack the numbers for it."""
    return style.render_png(COMPARISON_PLOTS[stem], runs)
