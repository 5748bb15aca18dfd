"""The figures of a report, a file each. matplotlib is imported here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from erulab.reporting.load import RunResult
from erulab.reporting.plots import style
from erulab.reporting.plots.budget import best_so_far, learning
from erulab.reporting.plots.heat import heat
from erulab.reporting.plots.knowledge import knowledge
from erulab.reporting.plots.relearning import relearning
from erulab.reporting.plots.requests import requests
from erulab.reporting.plots.robustness import robustness
from erulab.reporting.plots.trade_off import trade_off
from erulab.reporting.plots.training import training
from erulab.reporting.plots.trajectories import trajectories

# File stem -> figure, in the order of the report.
OF_A_RUN: dict[str, Callable[[RunResult], Figure | None]] = {
    "robustness": robustness,
    "heat": heat,
    "knowledge": knowledge,
    "requests": requests,
    "relearning": relearning,
    "learning": learning,
    "budget": best_so_far,
    "trajectory": lambda run: trajectories([run]),
    "training": training,
}
OF_SEVERAL: dict[str, Callable[[Sequence[RunResult]], Figure | None]] = {
    "trade_off": trade_off,
    "trajectories": trajectories,
}


def run_figures(run: RunResult) -> dict[str, bytes]:
    """File stem -> PNG, for each figure that the run's files have the numbers for."""
    return {stem: image for stem, make in OF_A_RUN.items() if (image := style.png(make, run)) is not None}


def comparison_figures(runs: Sequence[RunResult]) -> dict[str, bytes]:
    """Stem -> PNG, for each figure over several runs that they have the numbers for."""
    return {stem: image for stem in OF_SEVERAL if (image := comparison_figure(stem, runs)) is not None}


def comparison_figure(stem: str, runs: Sequence[RunResult]) -> bytes | None:
    """One figure over several runs."""
    return style.png(OF_SEVERAL[stem], runs)
