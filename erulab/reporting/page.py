"""Writes report.md and report.html of a run, and the page that compares runs."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from erulab.errors import DataError, IntegrityFault
from erulab.evaluation.equivalence import Outcome
from erulab.reporting import escape, plots
from erulab.reporting.arms import arm_tables
from erulab.reporting.attack_tables import attack_table, every_attack_row_table, heat_table
from erulab.reporting.costs import cost_table
from erulab.reporting.depth import depth_sentence
from erulab.reporting.load import RunResult, load_run
from erulab.reporting.numbers import short
from erulab.reporting.oracles import spread_sentence
from erulab.reporting.rendering import Table
from erulab.reporting.settings import flat_settings, setting_text
from erulab.reporting.tables import comparison_table, key_table, request_table, score_table
from erulab.reporting.verdict import Verdict, judge_run
from erulab.rundir import RunDir

TEMPLATES = Path(__file__).parent / "templates"
CAPTIONS = {
    "robustness": "Knowledge left without an attack and after each one. The green band is the margin.",
    "knowledge": "What target, unlearned model and oracle know, by suite.",
    "depth": "How much of a forgotten fact the target cannot read from the unlearned model's states, by layer.",
    "heat": "Knowledge left by attack and metric. Hatched cells say nothing about robustness.",
    "relearning": "The three models before and after relearning, by the number of rows relearned.",
    "learning": "The three models along the attacker's steps.",
    "budget": "Knowledge left after each valid setting and attempt by its cost, and the highest value up to each cost.",
    "trajectory": "Knowledge left against utility, step by step.",
    "training": "The unlearning run, step by step.",
    "requests": "The model before the first request and after each one.",
    "trade_off": "Knowledge left against utility, one point per run. The best place: in the green band, full utility.",
    "trajectories": "Knowledge left against utility along each run, from before training on. Large mark: the result.",
}


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
    images = plots.run_images(run)
    rundir.plots.mkdir(exist_ok=True)
    files = {rundir.plots / f"{stem}.png": image for stem, image in images.items()}
    # Plots of an earlier run with more stages would look like this run's, and would be sent to wandb.
    for old in set(rundir.plots.glob("*.png")) - set(files):
        old.unlink()
    for file, image in files.items():
        rundir.write_bytes(file, image)
    rundir.write_text(rundir.report_md, markdown_page(run, list(files)))
    rundir.write_text(rundir.report_html, html_page(run, images))
    if run.damaged:
        raise IntegrityFault("; ".join(run.damaged))


def page_without_texts(rundir: RunDir) -> str:
    """Returns report.html of a run without generated texts, to be sent where they must not go."""
    run = dataclasses.replace(load_run(rundir.path), samples=[], alternatives=[])
    return html_page(run, {file.stem: file.read_bytes() for file in sorted(rundir.plots.glob("*.png"))})


def html_page(run: RunResult, images: dict[str, bytes]) -> str:
    """Returns report.html, one self-contained file. `images`: stem -> PNG."""
    return (
        _jinja_environment(autoescape=True)
        .get_template("report.html")
        .render(
            **_template_values(run),
            images={stem: _data_url(image) for stem, image in images.items()},
            key_figures=Markup(key_table(run).render("html")),
            scores=Markup(score_table(run).render("html")),
            attacks=Markup(attack_table(run).without_empty_columns().render("html")),
            every_attack=Markup(every_attack_row_table(run).render("html")),
            heat=Markup(_render_if_any(heat_table(run), "html")),
            requests=Markup(_render_if_any(request_table(run), "html")),
            costs=Markup(cost_table(run).render("html")),
        )
    )


def markdown_page(run: RunResult, images: Sequence[Path]) -> str:
    """Returns report.md. `images`: files in the run folder, linked relative to it."""
    return (
        _jinja_environment(autoescape=False)
        .get_template("report.md")
        .render(
            **_template_values(run),
            images={path.stem: path.relative_to(run.path).as_posix() for path in images},
            key_figures=key_table(run).render("md"),
            scores=score_table(run).render("md"),
            attacks=attack_table(run).without_empty_columns().render("md"),
            every_attack=every_attack_row_table(run).render("md"),
            heat=_render_if_any(heat_table(run), "md"),
            requests=_render_if_any(request_table(run), "md"),
            costs=cost_table(run).render("md"),
        )
    )


def comparison_page(runs: Sequence[RunResult]) -> str:
    """Returns the comparison of several runs, one self-contained HTML file."""
    images = {stem: _data_url(image) for stem, image in plots.comparison_images(runs).items()}
    return (
        _jinja_environment(autoescape=True)
        .get_template("comparison.html")
        .render(
            table=Markup(comparison_table(runs).render("html")),
            images=images,
            captions=CAPTIONS,
            arms=[Markup(table.render("html")) for table in arm_tables(runs)],
            verdicts=[(run.name, judge_run(run)) for run in runs],
        )
    )


def _render_if_any(table: Table | None, format: str) -> str:
    return "" if table is None else table.render(format)


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


def _jinja_environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "visible": escape.visible,
        "lines": lambda text: escape.visible(text, lines=True),
        "md": escape.markdown,
        "block": escape.markdown_block,
        "short": short,
    }
    return environment


def _data_url(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
