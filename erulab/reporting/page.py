"""Writes report.md and report.html of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from erulab.errors import DataError, IntegrityFault
from erulab.evaluation.equivalence import Outcome
from erulab.reporting import plots
from erulab.reporting.attack_tables import attack_table, every_attack_row_table, heat_table
from erulab.reporting.captions import CAPTIONS
from erulab.reporting.costs import cost_table
from erulab.reporting.depth import depth_sentence
from erulab.reporting.load import RunResult, load_run
from erulab.reporting.oracles import spread_sentence
from erulab.reporting.rendering import Table
from erulab.reporting.samples import sample_views
from erulab.reporting.scale import verdict_scale
from erulab.reporting.settings import flat_settings, setting_text
from erulab.reporting.tables import key_table, request_table, score_table
from erulab.reporting.templating import fill_template
from erulab.reporting.verdict import Verdict, judge_run, margin_of
from erulab.rundir import RunDir

ATTACK_COLUMNS = ("attack", "setting", "after attack", "valid")  # shown even if all rows have the same
OF_ATTACKS = ("robustness", "heat", "relearning", "learning", "budget")  # plots that stand with the attacks


def write_pages(rundir: RunDir) -> None:
    """Writes the files of `erulab.reporting.write_report`."""
    run = load_run(rundir.path)
    if run.damaged and not run.has_results:
        raise IntegrityFault("; ".join(run.damaged))
    if not run.has_results:
        raise DataError(
            f"{rundir.path}: nothing to report, no stage has finished with these settings; add others to stages, such "
            "as stages=[target,oracle,unlearn,evaluate,attack,report]"
        )
    drawings = plots.run_drawings(run, CAPTIONS, files=True)
    rundir.plots.mkdir(exist_ok=True)
    files = {rundir.plots / f"{stem}.png": drawing.png for stem, drawing in drawings.items()}
    # Plots of an earlier run with more stages would look like this run's, and would be sent to wandb.
    for old in set(rundir.plots.glob("*.png")) - set(files):
        old.unlink()
    for file, image in files.items():
        rundir.write_bytes(file, image)
    rundir.write_text(rundir.report_md, markdown_page(run, list(files)))
    rundir.write_text(rundir.report_html, html_page(run, drawings))
    if run.damaged:
        raise IntegrityFault("; ".join(run.damaged))


def page_without_texts(rundir: RunDir) -> str:
    """Returns report.html of a run without generated texts, to be sent where they must not go."""
    run = dataclasses.replace(load_run(rundir.path), samples=[], alternatives=[])
    return html_page(run, plots.run_drawings(run, CAPTIONS, files=False))


def html_page(run: RunResult, drawings: Mapping[str, plots.Drawing]) -> str:
    """Returns report.html, one self-contained file. `drawings`: stem -> plot."""
    samples = sample_views(run.samples)
    return fill_template(
        "report.html",
        {
            **_template_values(run),
            **{name: Markup(table) for name, table in _tables(run, "html").items()},  # noqa: S704  (they are escaped)
            "sections": _sections(run),
            "scale": verdict_scale(run),
            "margin": margin_of(run),
            "of_attacks": OF_ATTACKS,
            "drawings": drawings,
            "different": [sample for sample in samples if not sample.alike],
            "alike": [sample for sample in samples if sample.alike],
        },
    )


def markdown_page(run: RunResult, images: Sequence[Path]) -> str:
    """Returns report.md. `images`: files in the run folder, linked relative to it."""
    links = {path.stem: path.relative_to(run.path).as_posix() for path in images}
    return fill_template("report.md", {**_template_values(run), **_tables(run, "md"), "images": links})


def _tables(run: RunResult, format: str) -> dict[str, str]:
    """Returns the tables of a report by their name in the templates; empty for one that the run has not."""
    attacks = attack_table(run).without_empty_columns()
    tables: dict[str, Table | None] = {
        "key_figures": key_table(run),
        "scores": score_table(run),
        "attacks": attacks.with_constant_columns_folded(ATTACK_COLUMNS) if format == "html" else attacks,
        "every_attack": every_attack_row_table(run),
        "heat": heat_table(run),
        "requests": request_table(run),
        "costs": cost_table(run),
    }
    return {name: "" if table is None else table.render(format) for name, table in tables.items()}


def _sections(run: RunResult) -> list[tuple[str, str]]:
    """Returns (anchor, heading) of the page's sections, for its list of contents."""
    return [
        ("glance", "At a glance"),
        *([("requests", "Requests")] if request_table(run) is not None else []),
        ("attacks", "Attacks"),
        ("samples", "Before and after"),
        *([("alternatives", "Alternatives")] if run.alternatives else []),
        ("costs", "Costs"),
        ("reproduce", "Reproduce"),
    ]


def _template_values(run: RunResult) -> dict[str, Any]:
    judged = judge_run(run)
    return {
        "run": run,
        "verdict": judged,
        "tone": _verdict_tone(judged),
        "depth": depth_sentence(run),
        "data_notes": run.stages.get("data", {}).get("notes", []),
        "oracles": spread_sentence(run.scores),
        "over": judged.forgetting.outcome is Outcome.over,
        "captions": CAPTIONS,
        "settings": [(key, setting_text(value)) for key, value in flat_settings(run.config).items()],
        "samples": run.samples,
        "alternatives": run.alternatives,
        "environment": [
            (key, setting_text(value)) for key, value in flat_settings(run.env).items() if key != "command"
        ],
        "command": str(run.env.get("command") or ""),
    }


def _verdict_tone(judged: Verdict) -> str:
    """Returns the verdict's CSS class; "good" (green) only if everything was shown, nothing left undecided."""
    if judged.alone:
        return "plain"
    if judged.collapsed or judged.forgetting.outcome is Outcome.remains:
        return "bad"
    return "good" if judged.good else "mixed"
