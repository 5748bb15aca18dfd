"""report.md and report.html of a run, and the page that compares runs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from erulab.errors import DataError
from erulab.reporting import escape, plots
from erulab.reporting.arms import arms
from erulab.reporting.attack_tables import attack_table, every_attack_row, heat_table
from erulab.reporting.costs import cost_table
from erulab.reporting.load import RunResult, load_run
from erulab.reporting.numbers import short
from erulab.reporting.rendering import Table
from erulab.reporting.settings import flat, settings
from erulab.reporting.tables import comparison, key_table, request_table, score_table
from erulab.reporting.verdict import Outcome, Verdict, outcome, verdict
from erulab.rundir import RunDir

TEMPLATES = Path(__file__).parent / "templates"
CAPTIONS = {
    "robustness": "Knowledge of the forget set above the oracle, without an attack and after each one.",
    "knowledge": "What target, unlearned model and oracle know, by suite.",
    "heat": "Knowledge above the oracle by attack and metric. Hatched cells say nothing about robustness.",
    "relearning": "The three models before and after an attacker retrains them on more and more rows.",
    "learning": "The three models along the attacker's steps.",
    "budget": "What an attacker can have for a budget: settings and attempts that count, and the best of them so far.",
    "trajectory": "Knowledge of the forget set against utility, step by step.",
    "training": "The unlearning run, step by step.",
    "requests": "The model before the first and after each of several requests.",
    "trade_off": "Forgetting against utility, a point a run. The best place is inside the green band at full utility.",
    "trajectories": "Knowledge against utility along each run, from before training to its end (the large mark).",
}


def write(rundir: RunDir) -> None:
    """See `erulab.reporting.write_report`."""
    run = load_run(rundir.path)
    if not run.has_results:
        raise DataError(
            f"{rundir.path}: nothing to report, no stage has finished with these settings; add others to stages, such "
            "as stages=[target,oracle,unlearn,evaluate,attack,report]"
        )
    images = plots.run_figures(run)
    rundir.plots.mkdir(exist_ok=True)
    files = {rundir.plots / f"{stem}.png": image for stem, image in images.items()}
    # Figures that an earlier run with more stages left would be taken for this one's, and sent to wandb.
    for old in set(rundir.plots.glob("*.png")) - set(files):
        old.unlink()
    for file, image in files.items():
        rundir.write_bytes(file, image)
    rundir.write_text(rundir.report_md, markdown_page(run, list(files)))
    rundir.write_text(rundir.report_html, html_page(run, images))


def html_page(run: RunResult, images: dict[str, bytes]) -> str:
    """One self-contained HTML file. `images`: stem -> PNG."""
    return (
        _environment(autoescape=True)
        .get_template("report.html")
        .render(
            **_contents(run),
            images={stem: _data_url(image) for stem, image in images.items()},
            key_figures=Markup(key_table(run).render("html")),
            scores=Markup(score_table(run).render("html")),
            attacks=Markup(attack_table(run).render("html")),
            every_attack=Markup(every_attack_row(run).render("html")),
            heat=Markup(_or_nothing(heat_table(run), "html")),
            requests=Markup(_or_nothing(request_table(run), "html")),
            costs=Markup(cost_table(run).render("html")),
        )
    )


def markdown_page(run: RunResult, images: Sequence[Path]) -> str:
    """`images`: files in the run folder, linked relative to it."""
    return (
        _environment(autoescape=False)
        .get_template("report.md")
        .render(
            **_contents(run),
            images={path.stem: path.relative_to(run.path).as_posix() for path in images},
            key_figures=key_table(run).render("md"),
            scores=score_table(run).render("md"),
            attacks=attack_table(run).render("md"),
            every_attack=every_attack_row(run).render("md"),
            heat=_or_nothing(heat_table(run), "md"),
            requests=_or_nothing(request_table(run), "md"),
            costs=cost_table(run).render("md"),
        )
    )


def comparison_page(runs: Sequence[RunResult]) -> str:
    """One self-contained HTML file over several runs."""
    images = {stem: _data_url(image) for stem, image in plots.comparison_figures(runs).items()}
    return (
        _environment(autoescape=True)
        .get_template("comparison.html")
        .render(
            table=Markup(comparison(runs).render("html")),
            images=images,
            captions=CAPTIONS,
            arms=[Markup(table.render("html")) for table in arms(runs)],
            verdicts=[(run.name, verdict(run)) for run in runs],
        )
    )


def _or_nothing(table: Table | None, format: str) -> str:
    return "" if table is None else table.render(format)


def reproduce(run: RunResult) -> str:
    """The command that made the run."""
    command = run.env.get("command")
    if isinstance(command, list):
        return " ".join(str(part) for part in command)
    return str(command) if command else ""


def _contents(run: RunResult) -> dict[str, Any]:
    judged = verdict(run)
    return {
        "run": run,
        "verdict": judged,
        "tone": _tone(judged),
        "data_notes": run.stages.get("data", {}).get("notes", []),
        "over": judged.forgetting.outcome is Outcome.over,
        "captions": CAPTIONS,
        "settings": [(key, flat(value)) for key, value in settings(run.config).items()],
        "samples": run.samples,
        "environment": [(key, flat(value)) for key, value in settings(run.env).items() if key != "command"],
        "command": reproduce(run),
    }


# Below this share of the target's utility the verdict is not shown in green.
UTILITY_KEPT = 0.9


def _tone(judged: Verdict) -> str:
    """The colour of the verdict: green only where nothing is wrong, and attacks show that it stays so."""
    if judged.alone:
        return "plain"
    if judged.collapsed or judged.forgetting.outcome is Outcome.remains:
        return "bad"
    kept = judged.utility.ratio is not None and judged.utility.ratio >= UTILITY_KEPT
    worst = judged.worst
    held = worst.value is not None and outcome(worst.value, worst.low, worst.high) is not Outcome.remains
    return "good" if judged.forgetting.outcome is Outcome.within and kept and held else "mixed"


def _environment(*, autoescape: bool) -> Environment:
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
