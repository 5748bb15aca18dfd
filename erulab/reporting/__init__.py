"""Reads run folders back for people: verdict, tables, plots, report pages. Nothing here loads torch.

Notebooks and `python -m erulab.report` use this package and nothing behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from erulab.evaluation.equivalence import Kept, Outcome, Withstood
from erulab.reporting.arms import arm_tables
from erulab.reporting.attack_tables import attack_table, every_attack_row_table, heat_table
from erulab.reporting.budget import best_by_cost
from erulab.reporting.jobs import sweep_progress
from erulab.reporting.load import RunResult, load_run, load_runs
from erulab.reporting.rendering import FORMATS, Table
from erulab.reporting.tables import comparison_table, key_table, score_table
from erulab.reporting.trajectories import Point, least_knowledge_at, run_trajectory
from erulab.reporting.verdict import Verdict, judge, judge_run
from erulab.rundir import RunDir

__all__ = [
    "FORMATS",
    "Kept",
    "Outcome",
    "Picture",
    "Point",
    "RunResult",
    "Table",
    "Verdict",
    "Withstood",
    "arm_tables",
    "attack_table",
    "best_by_cost",
    "compare",
    "compare_runs",
    "comparison_table",
    "draw_run",
    "draw_trade_off",
    "draw_trajectories",
    "every_attack_row_table",
    "heat_table",
    "judge",
    "judge_run",
    "key_table",
    "least_knowledge_at",
    "load_run",
    "load_runs",
    "page_without_texts",
    "run_trajectory",
    "score_table",
    "write_report",
]


@dataclass(frozen=True)
class Picture:
    """A PNG that a notebook shows if it is the last value of a cell."""

    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png


def compare(folders: Sequence[Path], format: str = "text", *, sweep: Path | None = None, at: Path | None = None) -> str:
    """Compares runs: a table of runs, and a table of arms if runs of several worlds or seeds form arms.

    Args:
        folders: run folders, sweep folders, or folders that hold runs.
        format: one of FORMATS; html is a whole page with plots, csv holds the table of runs only.
        sweep: folder of the sweep that the runs belong to; if it did not finish, text, md and html say what is missing.
        at: folder that an html page is written to; its links to the runs' pages begin there. None: no links.
    Raises:
        DataError: a folder holds no run or sweep.
        IntegrityFault: a sweep.json is damaged.
    """
    return compare_runs(load_runs(folders), format, sweep=sweep, at=at)


def compare_runs(
    runs: Sequence[RunResult], format: str = "text", *, sweep: Path | None = None, at: Path | None = None
) -> str:
    """Compares runs as `compare` does; files that are damaged are named below the table."""
    progress = sweep_progress(sweep) if sweep is not None else None
    if format == "html":
        from erulab.reporting.comparison import comparison_page  # matplotlib takes a second, and only html draws

        return comparison_page(runs, progress, at)
    tables = [comparison_table(runs), *(arm_tables(runs) if format != "csv" else [])]
    found = [table.render(format) for table in tables]
    if progress is not None and not progress.is_complete and format in ("text", "md"):
        found.insert(0, progress.render(format))
    return "\n".join(found)


def draw_run(run: RunResult) -> dict[str, Picture]:
    """Draws each plot of the report that the run has numbers for: name -> picture."""
    from erulab.reporting import plots  # loads matplotlib

    return {name: Picture(image) for name, image in plots.run_images(run).items()}


def draw_trade_off(runs: Sequence[RunResult]) -> Picture | None:
    """Draws knowledge left against utility, one point per run; None if no run has both."""
    return _draw_comparison(runs, "trade_off")


def draw_trajectories(runs: Sequence[RunResult]) -> Picture | None:
    """Draws knowledge left against utility along training, one line per run; None if no run was measured on the way."""
    return _draw_comparison(runs, "trajectories")


def _draw_comparison(runs: Sequence[RunResult], stem: str) -> Picture | None:
    from erulab.reporting import plots  # loads matplotlib

    image = plots.comparison_image(stem, runs)
    return Picture(image) if image else None


def page_without_texts(rundir: RunDir) -> str:
    """Returns report.html of a run without generated texts, which can hold what must be forgotten."""
    from erulab.reporting import page  # loads jinja

    return page.page_without_texts(rundir)


def write_report(rundir: RunDir) -> None:
    """Writes report.md, report.html and plots/ of a run folder from the files that are in it.

    Raises:
        DataError: the folder is no run, or no stage has finished.
        IntegrityFault: files are damaged; the report of the others is written first.
    """
    from erulab.reporting.page import write_pages  # loads matplotlib and jinja

    write_pages(rundir)
