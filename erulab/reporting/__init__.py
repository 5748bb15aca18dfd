"""Run folders read back for people: verdict, tables, plots, report pages. Nothing here loads torch.

Notebooks and `python -m erulab.report` use this package and nothing behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from erulab.reporting.arms import arms
from erulab.reporting.attack_tables import attack_table, every_attack_row, heat_table
from erulab.reporting.budget import envelope
from erulab.reporting.load import RunResult, load_run, load_runs
from erulab.reporting.rendering import FORMATS, Table
from erulab.reporting.tables import comparison, key_table, score_table
from erulab.reporting.trajectories import Point, knowledge_at, trajectory_of
from erulab.reporting.verdict import Outcome, Verdict, judge, verdict
from erulab.rundir import RunDir

__all__ = [
    "FORMATS",
    "Outcome",
    "Picture",
    "Point",
    "RunResult",
    "Table",
    "Verdict",
    "arms",
    "attack_table",
    "compare",
    "comparison",
    "envelope",
    "every_attack_row",
    "figures",
    "heat_table",
    "judge",
    "key_table",
    "knowledge_at",
    "load_run",
    "load_runs",
    "score_table",
    "trade_off",
    "trajectories",
    "trajectory_of",
    "verdict",
    "write_report",
]


@dataclass(frozen=True)
class Picture:
    """A PNG that a notebook shows where it is a cell's last value."""

    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png


def compare(folders: Sequence[Path], format: str = "text") -> str:
    """A comparison of run and sweep folders in one of FORMATS; html is a whole page with figures.

    Below the runs stand the arms, where runs of several worlds or seeds make some; csv is the table of runs alone.

    Args:
        folders: runs, sweeps, or folders that hold runs.
    Raises:
        DataError: a folder is and holds no run or sweep, or a file in it is damaged.
    """
    runs = load_runs(folders)
    if format != "html":
        tables = [comparison(runs), *(arms(runs) if format != "csv" else [])]
        return "\n".join(table.render(format) for table in tables)
    from erulab.reporting.page import comparison_page  # matplotlib takes a second, and only html draws

    return comparison_page(runs)


def figures(run: RunResult) -> dict[str, Picture]:
    """Name -> figure, for each of the report's figures that the run has numbers for."""
    from erulab.reporting import plots  # as above

    return {name: Picture(image) for name, image in plots.run_figures(run).items()}


def trade_off(runs: Sequence[RunResult]) -> Picture | None:
    """Forgetting against utility, a point a run; None where no run has both figures."""
    return _over(runs, "trade_off")


def trajectories(runs: Sequence[RunResult]) -> Picture | None:
    """Knowledge against utility along training, a line a run; None where no run was measured on the way."""
    return _over(runs, "trajectories")


def _over(runs: Sequence[RunResult], stem: str) -> Picture | None:
    from erulab.reporting import plots  # as above

    image = plots.comparison_figure(stem, runs)
    return Picture(image) if image else None


def write_report(rundir: RunDir) -> None:
    """Writes report.md, report.html and plots/ of a run folder from the files that are in it.

    Raises:
        DataError: the folder is no run, a file in it is damaged, or no stage has finished.
    """
    from erulab.reporting.page import write  # as above: `import erulab.reporting` stays light

    write(rundir)
