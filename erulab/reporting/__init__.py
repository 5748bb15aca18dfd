"""Run folders read back for people: verdict, tables, plots, report pages. Nothing here loads torch.

Notebooks and `python -m erulab.report` use this package and nothing behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from erulab.reporting.load import RunResult, load_run, load_runs
from erulab.reporting.rendering import FORMATS, Table
from erulab.reporting.tables import attack_table, comparison, key_table, score_table
from erulab.reporting.verdict import Outcome, Verdict, judge, verdict
from erulab.rundir import RunDir

__all__ = [
    "FORMATS", "Outcome", "Picture", "RunResult", "Table", "Verdict", "attack_table", "compare", "comparison",
    "figures", "judge", "key_table", "load_run", "load_runs", "score_table", "trade_off", "verdict", "write_report",
]  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A PNG that a notebook shows where it is a cell's last value."""

    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png


def compare(folders: Sequence[Path], format: str = "text") -> str:
    """A comparison of run and sweep folders in one of FORMATS; html is a whole page with the trade-off figure.

    Args:
        folders: runs, sweeps, or folders that hold runs.
    Raises:
        DataError: a folder is and holds no run or sweep, or a file in it is damaged.
    """
    runs = load_runs(folders)
    if format != "html":
        return comparison(runs).render(format)
    from erulab.reporting.page import comparison_page  # matplotlib takes a second, and only html draws

    return comparison_page(runs)


def figures(run: RunResult) -> dict[str, Picture]:
    """Name -> figure, for each of robustness, knowledge, relearning and training that the run has numbers for."""
    from erulab.reporting import plots  # as above

    return {name: Picture(image) for name, image in plots.run_figures(run).items()}


def trade_off(runs: Sequence[RunResult]) -> Picture | None:
    """Forgetting against utility, a point a run; None where no run has both figures."""
    from erulab.reporting import plots  # as above

    image = plots.png(plots.trade_off, runs)
    return Picture(image) if image else None


def write_report(rundir: RunDir) -> None:
    """Writes report.md, report.html and plots/ of a run folder from the files that are in it.

    Raises:
        DataError: the folder is no run, a file in it is damaged, or no stage has finished.
    """
    from erulab.reporting.page import write  # as above: `import erulab.reporting` stays light

    write(rundir)
