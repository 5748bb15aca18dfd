"""Run folders read back for people: verdict, tables, plots, report pages. Nothing here loads torch.

Notebooks and `python -m erulab.report` use this package and nothing behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from erulab.reporting.load import RunResult, load_run, load_runs
from erulab.reporting.rendering import FORMATS, Table
from erulab.reporting.tables import attack_table, comparison, key_table, score_table
from erulab.reporting.verdict import Outcome, Verdict, judge, verdict
from erulab.rundir import RunDir

__all__ = [
    "FORMATS", "Outcome", "RunResult", "Table", "Verdict", "attack_table", "compare", "comparison", "judge",
    "key_table", "load_run", "load_runs", "score_table", "verdict", "write_report",
]  # fmt: skip


def compare(folders: Sequence[Path], format: str = "text") -> str:
    """A comparison of run and sweep folders in one of FORMATS; html is a whole page with the trade-off figure.

    Raises:
        DataError: a folder is no run or sweep, or a file in it is damaged.
    """
    runs = load_runs(folders)
    if format != "html":
        return comparison(runs).render(format)
    from erulab.reporting.page import comparison_page  # matplotlib takes a second, and only html draws

    return comparison_page(runs)


def write_report(rundir: RunDir) -> None:
    """Writes report.md, report.html and plots/ of a run folder from the files that are in it.

    Raises:
        DataError: the folder is no run, or a file in it is damaged.
    """
    from erulab.reporting.page import write  # as above: `import erulab.reporting` stays light

    write(rundir)
