"""Methods compared over several worlds and seeds: runs whose settings agree but for these are one arm."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from erulab.reporting.intervals import Mean, mean, paired_difference
from erulab.reporting.load import RunResult
from erulab.reporting.numbers import short
from erulab.reporting.rendering import Cell, Table
from erulab.reporting.settings import NOT_SETTINGS, differing, flat
from erulab.reporting.tables import AFTER, WORST, metric_notes
from erulab.reporting.trajectories import LEVEL, knowledge_at, trajectory_of
from erulab.reporting.verdict import verdict

GROUPS = ("method", "reward", "adversary")
NOTE = (
    "Means over runs (n) with 95 % t-intervals; runs of one arm differ in world and seed only. K after an attack: its "
    "strongest valid setting in each run; a run where none is valid is left out of that mean, and counted beside it. "
    "The least K at a utility: while at least that share of the target's was kept, on lines between measured steps."
)
Pair = str


@dataclass(frozen=True)
class Arm:
    """Runs with the same settings but for world and seed. `config`: their settings, without these."""

    config: dict[str, Any]
    runs: tuple[RunResult, ...]

    @property
    def pairs(self) -> dict[Pair, list[RunResult]]:
        """World and seed -> runs."""
        found: dict[Pair, list[RunResult]] = {}
        for run in self.runs:
            found.setdefault(_pair(run.config), []).append(run)
        return found


def group(runs: Sequence[RunResult]) -> list[Arm]:
    """The arms of runs, in the order of their first run."""
    found: dict[str, list[RunResult]] = {}
    for run in runs:
        found.setdefault(json.dumps(_settings(run.config), sort_keys=True), []).append(run)
    return [Arm(_settings(own[0].config), tuple(own)) for own in found.values()]


def arms(runs: Sequence[RunResult], level: float = LEVEL) -> list[Table]:
    """The arms' means, one line an arm; and where there are several, their paired differences to the first.

    Args:
        level: share of the target's utility at which trajectories are compared.
    Returns:
        No table where no arm has runs of several worlds or seeds.
    """
    found = group(runs)
    if not any(len(arm.pairs) > 1 for arm in found):
        return []
    changed = differing([arm.config for arm in found])
    names = [_named(arm, settings) for arm, settings in zip(found, changed, strict=True)]
    figures = _figures(runs, level)
    values = [{heading: _values(arm, read) for heading, read in figures.items()} for arm in found]
    # An attack that counts in no run keeps its column: it is not to be forgotten that it tells nothing.
    headings = [name for name in figures if name.startswith(AFTER) or any(own[name] for own in values)]
    rows = [
        (Cell(name), Cell(str(len(arm.pairs))), *(_mean(own[heading], len(arm.pairs)) for heading in headings))
        for name, arm, own in zip(names, found, values, strict=True)
    ]
    tables = [Table(("arm", "runs", *headings), tuple(rows), (NOTE, *metric_notes(runs)))]
    if len(found) > 1:
        rows = [
            (Cell(name), Cell(heading), *_difference(own[heading], values[0][heading]))
            for name, own in zip(names[1:], values[1:], strict=True)
            for heading in headings
        ]
        note = (
            f"Each arm minus {names[0]}, paired by world and seed: mean over (n) pairs with its 95 % t-interval. Of "
            "many differences one in twenty has an interval without 0 by chance alone."
        )
        tables.append(Table(("arm", "figure", f"minus {names[0]}", "which is"), tuple(rows), (note,)))
    return tables


Read = Callable[[RunResult], float | None]


def _figures(runs: Sequence[RunResult], level: float) -> dict[str, Read]:
    """Heading -> how it is read from a run."""
    attacks = sorted({one.attack for run in runs for one in verdict(run).robustness})
    return {
        "K": lambda run: verdict(run).forgetting.value,
        WORST: lambda run: verdict(run).worst.value,
        **{f"{AFTER}{attack}": _after(attack) for attack in attacks},
        "utility kept": lambda run: verdict(run).utility.ratio,
        f"least K at utility {short(level)} or more": lambda run: knowledge_at(trajectory_of(run), level),
    }


def _after(attack: str) -> Read:
    def read(run: RunResult) -> float | None:
        return next((one.value for one in verdict(run).robustness if one.attack == attack), None)

    return read


def _values(arm: Arm, read: Read) -> dict[Pair, float]:
    """Pair -> value, of the pairs that have one."""
    # Several runs of one pair (copies, other engines) are no independent draws: they count once.
    found = {}
    for pair, runs in arm.pairs.items():
        known = mean([value for run in runs if (value := read(run)) is not None])
        if known is not None:
            found[pair] = known.value
    return found


def _mean(values: dict[Pair, float], runs: int) -> Cell:
    missing = f"none in {runs - len(values)}" if len(values) < runs else ""
    return _cell(mean(list(values.values())), missing)


def _difference(values: dict[Pair, float], first: dict[Pair, float]) -> tuple[Cell, Cell]:
    """The figure, and what may be said of it."""
    found = paired_difference(values, first)
    if found is None or found.holds_zero is None:
        return _cell(found, ""), Cell("unknown: no two pairs have it")
    said = "not distinguishable" if found.holds_zero else "higher" if found.value > 0 else "lower"
    return _cell(found, ""), Cell(said)


def _cell(found: Mean | None, text: str) -> Cell:
    if found is None:
        return Cell(text, is_figure=True)
    return Cell(text, value=found.value, low=found.low, high=found.high, n=found.n, is_figure=True)


def _named(arm: Arm, settings: dict[str, object]) -> str:
    run = arm.runs[0]
    chosen = [run.made_by] if run.checkpoint else [run.choice(name) for name in GROUPS]
    own = [f"{key}={flat(value)}" for key, value in settings.items()]
    return " ".join([*(name for name in chosen if name not in ("", "none")), *own]) or "none"


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """What makes an arm: neither world nor seed, nor where a run wrote."""
    own = copy.deepcopy({key: value for key, value in config.items() if key not in (*NOT_SETTINGS, "seed")})
    for key in ("world", "seed"):
        own.get("dataset", {}).pop(key, None)
    return own


def _pair(config: dict[str, Any]) -> Pair:
    data = config.get("dataset") or {}
    return json.dumps([data.get("world"), data.get("seed"), config.get("seed")])
