"""The tables of a report: several runs compared, one run's figures, its requests."""

from __future__ import annotations

import json
from collections.abc import Sequence

from erulab.evaluation.equivalence import Bounds
from erulab.reporting import trusted
from erulab.reporting.attack_rows import HEADLINE
from erulab.reporting.load import MODELS, RunResult
from erulab.reporting.numbers import number, short
from erulab.reporting.oracles import shown_oracle_note
from erulab.reporting.rendering import Cell, Table
from erulab.reporting.settings import differing_settings, setting_text
from erulab.reporting.shown_figures import COST, NOT_OF_ROWS, figures_worth_showing, row_count
from erulab.reporting.verdict import judge_run

CHOICES = ("run", "method", "reward", "adversary", "settings")
LEFT, AFTER, WORST = "knowledge left", "knowledge left after ", "knowledge left at worst"
# (heading, metric of scores.json); a column is left out if no run has it.
FIGURES = (
    ("log-odds forget", "forget/log_odds"),
    ("choice forget", "forget/choice"),
    ("choice held out", "forget_heldout/choice"),
    ("rank forget", "forget/rank"),
    ("extraction strength forget", "forget/extraction_strength"),
    ("judged, worst of phrasings", "judged_worst"),
    ("judged forget", "forget/judged"),
    ("judged retain", "retain/judged"),
    ("truth ratio forget", "forget/truth_ratio"),
    ("exact match retain", "retain/exact_match"),
    ("exact match unrehearsed", "retain_unrehearsed/exact_match"),
    ("probability retain", "retain/probability"),
    ("depth (UDS)", "uds"),
    ("membership AUC", "mia/auc_min_k"),
    ("PrivLeak, %", "mia/privleak"),
    ("model utility", "model_utility"),
    ("forget quality", "forget_quality"),
    ("RWKU FB", "forget_fb/rwku_recall"),
    ("RWKU QA", "forget_qa/rwku_recall"),
    ("RWKU AA", "forget_aa/rwku_recall"),
    ("RWKU forget all", "forget_all/rwku_recall"),
    ("RWKU neighbors all", "neighbor_all/rwku_recall"),
    ("verbatim memory", "verbmem/rouge_f1"),
    ("knowledge memory", "knowmem_f/rouge_f1"),
    ("knowledge retain", "knowmem_r/rouge_f1"),
    ("WMDP", "wmdp/accuracy"),
    ("MMLU", "mmlu/accuracy"),
)
# In the table of successive requests a suite is shown by the first of these figures that it has.
MAIN = ("choice", "accuracy", "rouge_f1", "rouge", "probability")
OVERALL = ("model_utility", "mia/privleak")


def comparison_table(runs: Sequence[RunResult]) -> Table:
    """Returns one row per run; targets and oracles that several runs share have one row each."""
    changed = differing_settings([run.config for run in runs])
    figures = _compared_figures(runs)
    rows = [_run_cells(run, settings, figures) for run, settings in zip(runs, changed, strict=True)]
    attacks = sorted({heading for row in rows for heading in row if heading.startswith(AFTER)})
    headings = [*CHOICES, "verdict", LEFT, WORST, *attacks, "utility kept", *(heading for heading, _ in figures)]
    rows = [_reference_cells(model, run, figures) for model, run in _distinct_references(runs)] + rows
    table = [tuple(row.get(heading, Cell()) for heading in headings) for row in rows]
    shown = {heading for row in rows for heading, cell in row.items() if cell.value is not None}
    notes = [
        "Knowledge left (K): share of what unlearning should remove that is still there, on log-odds (1 = as the "
        "target, 0 = as the oracle, below 0 = over-forgotten), with its 95 % interval; after an attack: after its "
        "strongest valid setting; at worst: after the strongest attack. Utility kept: share of the target's. (n): rows "
        "measured, in the heading if all share it."
    ]
    notes += metric_notes(runs)
    if failed := [heading for heading, name in figures if heading in shown and trusted.has_failed(name)]:
        notes.append(f"{trusted.FAILED}: {', '.join(failed)}.")
    notes += [f"Left out: {line}" for run in runs for line in run.damaged]
    notes += [f"{run.name}: not finished: {', '.join(run.missing)}" for run in runs if run.missing]
    return Table(tuple(headings), tuple(table), tuple(notes)).without_empty_columns()


def key_table(run: RunResult) -> Table:
    """Returns the comparison's figures for one run: one row per figure; target, unlearned model and oracle in columns.

    A given checkpoint, extra benchmarks, and a data set with none of the comparison's figures show all that are worth
    showing, by their names in scores.json.
    """
    models = [model for model in MODELS if model in run.scores]
    few = {name: heading for heading, name in FIGURES}
    names = figures_worth_showing(run.scores, list(few), run.config.get("benchmark") or (), every=bool(run.checkpoint))
    headings = {} if run.checkpoint else few
    cells = {name: [_score_cell(run, model, name) for model in models] for name in names}
    known = {name: row for name, row in cells.items() if any(cell.value is not None for cell in row)}
    rows = tuple((Cell(trusted.marked(name, headings.get(name, name))), *row) for name, row in known.items())
    return Table(("figure", *models), rows, (*trusted.footnote(known), *shown_oracle_note(run.scores)))


def score_table(run: RunResult) -> Table:
    """Returns all figures of scores.json by suite, the three models side by side, with n."""
    models = [model for model in MODELS if model in run.scores]
    names = dict.fromkeys(name for model in models for name in run.scores[model])
    rows = []
    for name in names:
        if name.endswith("/n") or name.startswith(NOT_OF_ROWS):
            continue
        suite, _, figure = name.rpartition("/")
        rows.append((Cell(suite), Cell(figure), *(_score_cell(run, model, name) for model in models)))
    return Table(("suite", "figure", *models), tuple(rows), shown_oracle_note(run.scores))


def request_steps(run: RunResult) -> list[tuple[str, str]]:
    """Returns (label, model of scores.json) from before the first request to after the last; empty for one request."""
    between = [model for model in run.scores if model.startswith("unlearned@")]
    if not between:
        return []
    steps = [("before", "target"), *((f"after {model.split('@', 1)[1]}", model) for model in between)]
    return [(words, model) for words, model in (*steps, ("after the last", "unlearned")) if model in run.scores]


def request_figures(run: RunResult) -> list[str]:
    """Returns one figure per suite, and those over several suites, for following a chain of requests."""
    names = dict.fromkeys(name for _, model in request_steps(run) for name in run.scores[model])
    suites = dict.fromkeys(name.split("/")[0] for name in names if name.endswith("/n"))
    found = [next((f"{suite}/{figure}" for figure in MAIN if f"{suite}/{figure}" in names), None) for suite in suites]
    return [name for name in (*found, *OVERALL) if name in names]


def request_table(run: RunResult) -> Table | None:
    """Returns one row per step of several requests, and the oracle; None for a single request."""
    steps = request_steps(run)
    if not steps:
        return None
    names = request_figures(run)
    models = [*steps, *([("oracle", "oracle")] if "oracle" in run.scores else [])]
    rows = tuple((Cell(words), *(_score_cell(run, model, name) for name in names)) for words, model in models)
    note = "Each model is scored on the rows of all requests, also later ones. Attacks and verdict: the last model."
    return Table(("requests", *names), rows, (note,))


def metric_notes(runs: Sequence[RunResult]) -> list[str]:
    """Returns one line for each attack whose knowledge left is not measured on log-odds."""
    found = {one.attack: one.metric for run in runs for one in judge_run(run).robustness if one.metric != HEADLINE}
    return [f"{AFTER}{attack} is measured on {metric}." for attack, metric in found.items()]


def _distinct_references(runs: Sequence[RunResult]) -> list[tuple[str, RunResult]]:
    """Returns (model, a run that has it) for every distinct target and oracle."""
    seen: dict[str, tuple[str, RunResult]] = {}
    for model in ("target", "oracle"):
        for run in runs:
            if model in run.scores:
                figures = {name: value for name, value in run.scores[model].items() if not name.startswith(COST)}
                seen.setdefault(model + json.dumps(figures, sort_keys=True), (model, run))
    return list(seen.values())


def _reference_cells(model: str, run: RunResult, figures: Sequence[tuple[str, str]]) -> dict[str, Cell]:
    return {"run": Cell(model)} | {heading: _score_cell(run, model, name) for heading, name in figures}


def _compared_figures(runs: Sequence[RunResult]) -> list[tuple[str, str]]:
    """Returns (heading, metric) of the usual figures, and of those of extra benchmarks and checkpoints."""
    few = [name for _, name in FIGURES]
    more = dict.fromkeys(
        name
        for run in runs
        for name in figures_worth_showing(
            run.scores, few, run.config.get("benchmark") or (), every=bool(run.checkpoint)
        )
        if name not in few
    )
    return [*FIGURES, *((name, name) for name in more)]


def _run_cells(run: RunResult, settings: dict[str, object], figures: Sequence[tuple[str, str]]) -> dict[str, Cell]:
    judged = judge_run(run)
    forgetting = judged.forgetting
    row = {"run": Cell(run.name)}
    row["method"] = Cell(run.made_by)
    if not run.checkpoint:
        row |= {group: Cell(run.choice(group)) for group in CHOICES[2:4]}
    row["settings"] = Cell(" ".join(f"{key}={setting_text(value)}" for key, value in settings.items()))
    row[LEFT] = _bounds_cell(forgetting.left, n=_forget_row_count(run))
    row |= {heading: _score_cell(run, "unlearned", name) for heading, name in figures}
    utility = judged.utility
    row["utility kept"] = _bounds_cell(utility.share, utility.ratio, n=utility.n)
    for attack in judged.robustness:
        note = "" if attack.value is not None else attack.standing.mark
        row[f"{AFTER}{attack.attack}"] = _bounds_cell(attack.left, text=note)
    row[WORST] = _bounds_cell(judged.worst.left)
    row["verdict"] = Cell(judged.label if run.scores else "not scored")
    return row


def _bounds_cell(found: Bounds | None, value: float | None = None, *, n: int | None = None, text: str = "") -> Cell:
    """Returns an estimate with its 95 % interval, or `value` if there is no interval."""
    if found is None:
        return Cell(text, value=value, n=n, is_figure=True)
    return Cell(text, value=found.value, low=found.low, high=found.high, n=n, is_figure=True)


def _score_cell(run: RunResult, model: str, name: str) -> Cell:
    scores = run.scores.get(model, {})
    value = number(scores.get(name))
    n = number(row_count(scores, name))
    if value is None:
        return Cell(is_figure=True)
    digits = 3 if name in ("model_utility", "forget_quality") else 2
    low, high = map(number, run.intervals.get(model, {}).get(name, (None, None)))
    # `written`: the value as it is without an interval, because its sign matters no more than its size.
    return Cell(
        value=value,
        low=low,
        high=high,
        n=None if n is None else int(n),
        is_figure=True,
        digits=digits,
        written="" if low is None else short(value, digits),
    )


def _forget_row_count(run: RunResult) -> int | None:
    """Counts the rows that knowledge left is measured on: those of forget and held-out suites together."""
    scores = run.scores.get("unlearned", {})
    counts = [number(scores.get(f"{suite}/n")) for suite in ("forget", "forget_heldout")]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None
