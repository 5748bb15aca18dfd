"""`python -m erulab ls [FOLDER...]`: the runs of some folders, what differs between them, and their figures."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from erulab.commands.arguments import OUTPUTS, ended_with_line, new_parser
from erulab.commands.state import State, local_time, started_at, state_of
from erulab.errors import IntegrityFault
from erulab.redaction import redacted, redacted_text
from erulab.reporting.escape import visible
from erulab.reporting.load import RunResult, load_figures, load_runs
from erulab.reporting.numbers import percent
from erulab.reporting.rendering import Cell, Table
from erulab.reporting.settings import setting_text, settings_unlike_most
from erulab.reporting.verdict import Verdict, judge_run

HEADINGS = ("run", "state", "verdict", "knowledge left", "utility kept", "worst attack", "started", "what differs")
NOTE = (
    "Knowledge left, also after the worst attack: share of what unlearning should remove, with its 95 % interval. "
    "What differs: settings that at most half of the runs share. Figures of each: python -m erulab.report FOLDER"
)
GROUPS = ("method", "reward", "adversary")


@dataclass(frozen=True)
class Listed:
    """One run of the list. `settings`: those in which it is unlike most of the others, without secrets."""

    run: RunResult
    state: State
    started: datetime
    verdict: Verdict
    settings: dict[str, Any]

    @property
    def made_by(self) -> list[str]:
        """The method, reward and adversary, or `given` for a checkpoint of the user."""
        if self.run.checkpoint:
            return [self.run.made_by]
        return [name for name in map(self.run.choice, GROUPS) if name not in ("", "none")] or ["none"]


# What `--sort` takes; None, where a run has no such figure, comes first.
ORDERS: dict[str, Callable[[Listed], Any]] = {
    "started": lambda one: one.started,
    "name": lambda one: one.run.name,
    "state": lambda one: one.state.value,
    "left": lambda one: one.verdict.forgetting.value,
    "utility": lambda one: one.verdict.utility.ratio,
    "worst": lambda one: one.verdict.worst.value,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the list; returns the exit code: 3 where no run is found, 6 where files of runs are damaged."""
    return ended_with_line(lambda: _list_runs(arguments))


def _list_runs(arguments: Sequence[str] | None) -> int:
    parser = new_parser("ls", "Lists runs: state, verdict, figures, and what differs between them.")
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help=f"runs, sweeps, or folders of them; default: {OUTPUTS}"
    )
    parser.add_argument("--sort", choices=ORDERS, default="started", help="ascending; default: started, newest last")
    parser.add_argument("--json", action="store_true", help="print one JSON list, for programs")
    options = parser.parse_args(arguments)
    found = listed_runs(options.folders or [Path(OUTPUTS)], options.sort)
    sys.stdout.write(json.dumps([_plain(one) for one in found], indent=1) + "\n" if options.json else _text(found))
    damaged = [line for one in found for line in one.run.damaged]
    for line in damaged:
        print(redacted_text(line), file=sys.stderr)
    return IntegrityFault.code if damaged else 0


def listed_runs(folders: Sequence[Path], order: str = "started") -> list[Listed]:
    """Returns the runs of some folders, sorted.

    Args:
        folders: run folders, sweep folders, or folders that stand for every run below them.
        order: a key of ORDERS.
    Raises:
        DataError: a folder holds no run.
    """
    runs = load_runs(folders, load_figures)
    settings = settings_unlike_most([run.config for run in runs])
    found = [
        Listed(run, state_of(run), started_at(run), judge_run(run), redacted(own))
        for run, own in zip(runs, settings, strict=True)
    ]
    key = ORDERS[order]
    return sorted(found, key=lambda one: (key(one) is not None, key(one)) if key(one) is not None else (False,))


def _text(found: Sequence[Listed]) -> str:
    """Returns the list as text: whole lines in a pipe; what differs below each run where a terminal is too narrow."""
    rows = [_cells(one) for one in found]
    text = _lines_of(HEADINGS, rows)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if width is None or max(map(len, text)) <= width:
        return "\n".join([*text, NOTE]) + "\n"
    text = _lines_of(HEADINGS[:-1], [row[:-1] for row in rows])
    heads, body = text[: -len(rows)], text[-len(rows) :]
    below = [f"    {row[-1].text}" for row in rows]
    lines = [*heads, *(line for pair in zip(body, below, strict=True) for line in pair)]
    return "\n".join([*(line if len(line) <= width else f"{line[: width - 1]}…" for line in lines), NOTE]) + "\n"


def _lines_of(headings: Sequence[str], rows: Sequence[tuple[Cell, ...]]) -> list[str]:
    return Table(tuple(headings), tuple(rows)).without_empty_columns().render("text").splitlines()


def _cells(one: Listed) -> tuple[Cell, ...]:
    judged, run = one.verdict, one.run
    left, worst, utility = judged.forgetting.left, judged.worst, judged.utility
    settings = [f"{key}={setting_text(value)}" for key, value in one.settings.items()]
    return (
        Cell(run.name),
        Cell(_state_in_words(one)),
        Cell(judged.label if run.scores else ""),
        Cell() if left is None else Cell(value=left.value, low=left.low, high=left.high, is_figure=True),
        Cell("" if utility.ratio is None else percent(utility.ratio)),
        Cell()
        if worst.left is None
        else Cell(worst.attack, value=worst.left.value, low=worst.left.low, high=worst.left.high, is_figure=True),
        Cell(local_time(one.started)),
        Cell(visible(" ".join([*one.made_by, *settings]))),
    )


def _state_in_words(one: Listed) -> str:
    missing = one.run.missing
    if one.state in (State.stopped, State.failed, State.lost) and missing:
        return f"{one.state.value} in {missing[0]}"
    return one.state.value


def _plain(one: Listed) -> dict[str, Any]:
    """Returns a run as `--json` prints it; a figure that is not known is null."""
    judged, run = one.verdict, one.run
    worst = judged.worst
    return {
        "name": run.name,
        "folder": str(run.path),
        "state": one.state.value,
        "code": run.ended.get("code"),
        "message": redacted_text(str(run.ended.get("message", ""))),
        "missing_stages": list(run.missing),
        "started": one.started.isoformat(),
        "made_by": one.made_by,
        "settings": one.settings,
        "verdict": judged.label if run.scores else None,
        "knowledge_left": _bounds(judged.forgetting.left),
        "utility_kept": judged.utility.ratio,
        "worst_attack": None if worst.left is None else {"attack": worst.attack, **(_bounds(worst.left) or {})},
        "damaged": [redacted_text(line) for line in run.damaged],
    }


def _bounds(found: Any) -> dict[str, float] | None:
    """Returns an estimate with its 95 % interval."""
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}
