"""The page that compares runs: what was found, the trade-off, the arms, and the rest folded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from erulab.reporting import plots
from erulab.reporting.arm_summary import arm_summaries, design_sentence, finding_sentence, is_measurable
from erulab.reporting.arms import KEPT, arm_tables
from erulab.reporting.best import best_places
from erulab.reporting.captions import CAPTIONS
from erulab.reporting.jobs import SweepProgress
from erulab.reporting.load import RunResult
from erulab.reporting.rendering import Table
from erulab.reporting.tables import AFTER, CHOICES, LEFT, WORST, comparison_table
from erulab.reporting.templating import fill_template
from erulab.reporting.verdict import judge_run
from erulab.rundir import RunDir

WIDEST = 6  # figures in one table; more would not fit a screen or a sheet of paper
BOLD = (
    "Bold: closest to 0 (knowledge left) or highest (utility kept) in its column, whether or not the intervals "
    "separate it from the next."
)
WEAKER = "Weaker colour: less than half of the utility is left; these are never bold."
KNOWLEDGE = (LEFT, "least knowledge left")  # how headings of knowledge left begin, before and after attacks
ALWAYS = ("run", "arm", "verdict", LEFT, WORST, KEPT)  # columns that are shown even if all rows have the same


def comparison_page(runs: Sequence[RunResult], progress: SweepProgress | None = None, at: Path | None = None) -> str:
    """Returns the comparison of several runs, one self-contained HTML file.

    Args:
        progress: of the sweep that the runs belong to.
        at: folder that the page is written to; links to the runs' pages begin there. None: no links.
    """
    links = [_link_to_page(run, at) for run in runs]
    summaries = arm_summaries(runs)
    verdicts, figures = _run_tables(runs, links)
    arms = arm_tables(runs)
    main = verdicts
    if arms:
        main = _marked_table(arms[0], [one.collapsed for one in summaries], [one.left is not None for one in summaries])
    return fill_template(
        "comparison.html",
        {
            "design": design_sentence(summaries),
            "finding": finding_sentence(summaries),
            "progress": progress,
            "sections": [
                ("main", "Arms" if arms else "Runs"),
                *([("differences", "Differences between arms")] if len(arms) > 1 else []),
                ("runs", "Every run"),
            ],
            "drawings": plots.comparison_drawings(runs, CAPTIONS),
            "captions": CAPTIONS,
            "has_arms": bool(arms),
            "main": Markup(main.render("html")),  # noqa: S704  (a table escapes its texts)
            "differences": [Markup(table.render("html")) for table in arms[1:]],  # noqa: S704
            "runs": Markup(verdicts.render("html")) if arms else "",  # noqa: S704
            "figures": [Markup(table.render("html")) for table in figures],  # noqa: S704
            "verdicts": [(run.name, link, judge_run(run)) for run, link in zip(runs, links, strict=True)],
        },
    )


def _link_to_page(run: RunResult, at: Path | None) -> str:
    """Returns the relative address of a run's page; empty if there is none."""
    page = RunDir(run.path).report_html
    if at is None or not page.is_file():
        return ""
    # "./" first: a folder's name with a colon must not read as a scheme.
    return "./" + quote(Path(os.path.relpath(page.resolve(), at.resolve())).as_posix())


def _run_tables(runs: Sequence[RunResult], links: Sequence[str]) -> tuple[Table, list[Table]]:
    """Splits the comparison of runs: verdicts with settings and attacks, and tables of at most WIDEST figures."""
    whole = comparison_table(runs)
    references = len(whole.rows) - len(runs)  # rows of targets and oracles come first
    linked = [(replace(row[0], link=link), *row[1:]) for row, link in zip(whole.rows[references:], links, strict=True)]
    whole = replace(whole, rows=(*whole.rows[:references], *linked))
    judged = [i for i, name in enumerate(whole.headings) if name in (*CHOICES, *ALWAYS) or name.startswith(AFTER)]
    others = [i for i in range(len(whole.headings)) if i not in judged]
    verdicts = whole.with_columns(judged)
    verdicts = replace(verdicts, rows=verdicts.rows[references:])
    collapsed = [judge_run(run).collapsed for run in runs]
    marked = _marked_table(verdicts, collapsed, [is_measurable(run) for run in runs])
    chunks = [others[i : i + WIDEST] for i in range(0, len(others), WIDEST)]
    named = [i for i, name in enumerate(whole.headings) if name in ("run", "method")]
    figures = [_with_rows_filled(whole.with_columns([*named, *chunk]), len(named)) for chunk in chunks]
    return marked, [replace(table, notes=()) for table in figures]


def _with_rows_filled(table: Table, named: int) -> Table:
    """Returns the table without the rows that have nothing but a name."""
    return replace(table, rows=tuple(row for row in table.rows if any(cell.shown for cell in row[named:])))


def _marked_table(table: Table, collapsed: Sequence[bool], measurable: Sequence[bool]) -> Table:
    """Returns a table of arms or runs with the best figures in bold, collapsed rows dimmed, constant columns folded.

    Args:
        collapsed: whether each row lost more than half of its utility.
        measurable: whether each row's knowledge left means something.
    """
    rows = [list(row) for row in table.rows]
    for column, heading in enumerate(table.headings):
        name = "utility_kept" if heading == KEPT else "knowledge_left" if heading.startswith(KNOWLEDGE) else ""
        for place in best_places(name, [row[column].value for row in rows], collapsed, measurable):
            rows[place][column] = replace(rows[place][column], best=True)
    fallen = frozenset(place for place, one in enumerate(collapsed) if one)
    bold = any(cell.best for row in rows for cell in row)
    notes = (*([BOLD] if bold else []), *([WEAKER] if fallen else []), *table.notes)
    marked = replace(table, rows=tuple(map(tuple, rows)), dimmed=fallen, notes=notes)
    return marked.with_constant_columns_folded(ALWAYS)
