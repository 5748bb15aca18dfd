"""Prints what a person sees during a run: where it is, and one table at the end.

Without a terminal it prints plain lines. Text of models and configs can neither style nor control a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from erulab.evaluation.equivalence import Kept, Outcome, Withstood
from erulab.reporting.escape import visible
from erulab.reporting.numbers import duration, number, short
from erulab.reporting.shown_figures import figures_worth_showing, row_count
from erulab.reporting.verdict import MARGIN, judge

FIGURES = (
    "forget/choice",
    "forget_heldout/choice",
    "forget/rank",
    "forget/extraction_strength",
    "forget/probability",
    "forget/rouge",
    "judged_worst",
    "forget/truth_ratio",
    "retain/exact_match",
    "retain_unrehearsed/exact_match",
    "retain/probability",
    "mia/auc_min_k",
    "mia/privleak",
    "model_utility",
    "forget_quality",
    "forget_fb/rwku_recall",
    "forget_qa/rwku_recall",
    "forget_aa/rwku_recall",
    "forget_all/rwku_recall",
    "neighbor_all/rwku_recall",
    "truthfulqa/accuracy",
    "triviaqa/f1",
    "bbh/final_answer",
    "fluency/entropy",
    "verbmem/rouge_f1",
    "knowmem_f/rouge_f1",
    "knowmem_r/rouge_f1",
    "wmdp/accuracy",
    "mmlu/accuracy",
)
# The colour of a sentence of the verdict; yellow for all other outcomes.
STYLE: dict[Enum | None, str] = {
    Outcome.forgotten: "green",
    Outcome.remains: "red",
    Withstood.robust: "green",
    Withstood.back: "red",
    Kept.kept: "green",
    Kept.lost: "red",
}


def announce(line: str) -> None:
    """Prints one plain line about work that begins now and takes a while."""
    _new_console().print(Text(visible(line)), soft_wrap=True)


def announce_stage(number: int, total: int, stage: str, seconds: float, left: float | None) -> None:
    """Prints the line with which a stage begins.

    Args:
        number: of the stage, from 1.
        total: number of stages.
        seconds: since the run began.
        left: until the run ends, as far as earlier runs tell; None if they do not.
    """
    times = [] if number == 1 else [f"{duration(seconds)} since the start"]
    times += [] if left is None else [f"about {duration(left) if left >= 60 else f'{left:.0f} s'} left"]
    line = Text(f"stage {number} of {total}: {stage}", style="bold")
    _new_console().print(line.append(f"  ({', '.join(times)})" if times else "", style="not bold dim"), soft_wrap=True)


def show_jobs_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints a sweep's jobs: number, overrides, state, exit code, seconds, GPUs, folder."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("job", "overrides", "state", "code", "seconds", "GPU", "folder"):
        table.add_column(heading, justify="right" if heading in ("job", "code", "seconds") else "left", overflow="fold")
    for row in rows:
        table.add_row(*[Text(visible(cell)) for cell in row])
    Console().print(table)


def show_final_table(
    scores: dict[str, dict[str, Any]],
    attacks: list[dict[str, Any]],
    files: Sequence[Path] = (),
    extra_benchmarks: Iterable[str] = (),
    *,
    every: bool = False,
    margin: float = MARGIN,
) -> None:
    """Prints the three models side by side, the verdict in sentences, and the paths of the files.

    Args:
        scores, attacks: the contents of scores.json and attacks.json.
        files: paths to print at the end.
        extra_benchmarks: names of the benchmarks measured beside the data set.
        every: show all figures of the data set that are worth showing, instead of the usual few.
        margin: see `erulab.reporting.verdict.judge`.
    """
    console = _new_console()
    models = [model for model in ("target", "unlearned", "oracle") if model in scores]
    names = figures_worth_showing(scores, FIGURES, extra_benchmarks, every=every)
    rows = [name for name in names if any(number(scores[model].get(name)) is not None for model in models)]
    if rows:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("figure")
        for model in (*models, "n"):
            table.add_column(model, justify="right")
        for name in rows:
            n = next((number(row_count(scores[m], name)) for m in models), None)
            values = [short(number(scores[model].get(name)), 2 if "/" in name else 3) for model in models]
            table.add_row(name, *values, "" if n is None else str(int(n)))
        console.print(table)
    judged = judge(scores, attacks, margin)
    styles = {
        judged.forgetting.words: f"bold {STYLE.get(judged.forgetting.outcome, 'yellow')}",
        judged.utility.words: STYLE.get(judged.utility.outcome, "yellow"),
        judged.worst.words: STYLE.get(judged.worst.outcome, "yellow"),
    }
    for index, sentence in enumerate(judged.sentences):
        first = "bold red" if judged.collapsed else "bold"
        style = styles.get(sentence, first if index == 0 else "")
        console.print(Text(visible(sentence), style=style), soft_wrap=True)
    for file in files:
        console.print(Text(visible(file), style="dim"), soft_wrap=True)


def _new_console() -> Console:
    # A new one each time, because standard output may have been redirected. Rich itself respects NO_COLOR.
    return Console(highlight=False)
