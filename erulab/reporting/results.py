"""Prints the results of one run from the files in its folder, at its end and when a finished run is typed again."""

from __future__ import annotations

from erulab.options import RunConfig
from erulab.reporting.console import show_final_table
from erulab.rundir import RunDir


def show_results(rundir: RunDir, config: RunConfig) -> None:
    """Prints the closing table of a run that was evaluated or attacked, and where report and model are."""
    scores = rundir.read_json(rundir.scores_json) if rundir.scores_json.is_file() else {}
    attacks = rundir.read_json(rundir.attacks_json) if rundir.attacks_json.is_file() else []
    if not scores and not attacks:
        return
    files = [file for file in (rundir.report_html, rundir.report_md, rundir.model) if file.exists()]
    every, margin = config.only_given_models, config.report.margin
    show_final_table(scores, attacks, files, config.benchmark, every=every, margin=margin)
