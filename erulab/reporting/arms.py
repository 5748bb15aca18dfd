"""Compares methods over several worlds and seeds. Runs that differ in world and seed only form one arm."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from erulab.reporting.intervals import Mean, mean_paired_difference, mean_with_interval
from erulab.reporting.load import RunResult
from erulab.reporting.numbers import short, signed
from erulab.reporting.rendering import Cell, Table
from erulab.reporting.settings import NOT_SETTINGS, differing_settings, setting_text
from erulab.reporting.tables import AFTER, LEFT, WORST, metric_notes
from erulab.reporting.trajectories import LEVEL, least_knowledge_at, run_trajectory
from erulab.reporting.verdict import judge_run

GROUPS = ("method", "reward", "adversary")
KEPT = "utility kept"
NOTE = (
    "Means over runs (n) with 95 % t-intervals; of two runs both values stand in place of an interval. Runs of one arm "
    "differ in world and seed only. The interval of a share ends at 0 and 1. Knowledge left after an "
    "attack: after its strongest valid setting in each run; a run without a valid setting is left out of that mean and "
    "counted beside it. Least knowledge left at a utility: the smallest value while the run kept at least that share "
    "of the target's utility, on straight lines between measured steps."
)
WorldAndSeed = str  # world, data seed and seed as JSON


@dataclass(frozen=True)
class Arm:
    """Runs that differ in world and seed only. `config`: the settings they share."""

    config: dict[str, Any]
    runs: tuple[RunResult, ...]

    @property
    def draws(self) -> dict[WorldAndSeed, list[RunResult]]:
        """World and seed -> the runs with these."""
        found: dict[WorldAndSeed, list[RunResult]] = {}
        for run in self.runs:
            found.setdefault(_world_and_seed(run.config), []).append(run)
        return found


def group_into_arms(runs: Sequence[RunResult]) -> list[Arm]:
    """Groups runs into arms, in the order of each arm's first run."""
    found: dict[str, list[RunResult]] = {}
    for run in runs:
        found.setdefault(json.dumps(_arm_settings(run.config), sort_keys=True), []).append(run)
    return [Arm(_arm_settings(own[0].config), tuple(own)) for own in found.values()]


def arm_tables(runs: Sequence[RunResult], level: float = LEVEL) -> list[Table]:
    """Returns a table of means, one row per arm, and, for several arms, one of paired differences to the first arm.

    Args:
        level: share of the target's utility at which trajectories are compared.
    Returns:
        No table if no arm has runs of several worlds or seeds.
    """
    found = group_into_arms(runs)
    if not any(len(arm.draws) > 1 for arm in found):
        return []
    names = arm_names(found)
    figures = _arm_figures(runs, level)
    values = [{heading: _value_by_draw(arm, read) for heading, read in figures.items()} for arm in found]
    # An attack without a valid result keeps its column, so that the table shows that it gave none.
    headings = [name for name in figures if name.startswith(AFTER) or any(own[name] for own in values)]
    rows = [
        (Cell(name), Cell(str(len(arm.draws))), *(_mean_cell(heading, own, len(arm.draws)) for heading in headings))
        for name, arm, own in zip(names, found, values, strict=True)
    ]
    tables = [Table(("arm", "runs", *headings), tuple(rows), (NOTE, *metric_notes(runs)))]
    if len(found) > 1:
        rows = [
            (Cell(name), Cell(heading), *_difference_cells(own[heading], values[0][heading]))
            for name, own in zip(names[1:], values[1:], strict=True)
            for heading in headings
        ]
        note = (
            f"Each arm minus {names[0]}, paired by world and seed: mean over (n) pairs with its 95 % t-interval. One "
            "in twenty such intervals excludes 0 by chance alone."
        )
        tables.append(Table(("arm", "figure", f"minus {names[0]}", "conclusion"), tuple(rows), (note,)))
    return tables


Read = Callable[[RunResult], float | None]


def arm_names(arms: Sequence[Arm]) -> list[str]:
    """Returns each arm's name: its method, reward and adversary, and the settings that differ between arms."""
    changed = differing_settings([arm.config for arm in arms])
    return [_arm_name(arm, settings) for arm, settings in zip(arms, changed, strict=True)]


def distinguishing_parts(arms: Sequence[Arm]) -> list[dict[str, str]]:
    """Returns, for each arm, only what differs between arms: method, reward, adversary or setting -> its value.

    An arm lacks the settings of methods, rewards and adversaries that it does not use.
    """
    changed = differing_settings([arm.config for arm in arms])
    chosen = [
        {group: arm.runs[0].made_by if group == "method" else arm.runs[0].choice(group) for group in GROUPS}
        for arm in arms
    ]
    groups = [group for group in GROUPS if len({own[group] for own in chosen}) > 1]
    return [
        {group: own[group] or "none" for group in groups} | {key: setting_text(value) for key, value in more.items()}
        for own, more in zip(chosen, changed, strict=True)
    ]


def short_arm_names(arms: Sequence[Arm]) -> list[str]:
    """Returns names made only of what differs between the arms; the whole name of a single arm."""
    parts = distinguishing_parts(arms)
    return [
        " ".join(value if key in GROUPS else f"{key}={value}" for key, value in own.items()) or name
        for own, name in zip(parts, arm_names(arms), strict=True)
    ]


def draw_values(arm: Arm, read: Read) -> list[float]:
    """Returns a figure's value for each world and seed of an arm that has one."""
    return list(_value_by_draw(arm, read).values())


def _arm_figures(runs: Sequence[RunResult], level: float) -> dict[str, Read]:
    """Maps each column's heading to the function that reads its value from a run."""
    attacks = sorted({one.attack for run in runs for one in judge_run(run).robustness})
    return {
        LEFT: lambda run: judge_run(run).forgetting.value,
        WORST: lambda run: judge_run(run).worst.value,
        **{f"{AFTER}{attack}": partial(_value_after, attack) for attack in attacks},
        KEPT: lambda run: judge_run(run).utility.ratio,
        f"least knowledge left at utility {short(level)} or more": lambda run: least_knowledge_at(
            run_trajectory(run), level
        ),
    }


def _value_after(attack: str, run: RunResult) -> float | None:
    """Returns the knowledge left after an attack's strongest valid setting in a run."""
    return next((one.value for one in judge_run(run).robustness if one.attack == attack), None)


def _value_by_draw(arm: Arm, read: Read) -> dict[WorldAndSeed, float]:
    """Maps each draw that has a value to it."""
    # Several runs of one draw (copies, other engines) are not independent: their mean counts once.
    found = {}
    for draw, runs in arm.draws.items():
        known = mean_with_interval([value for run in runs if (value := read(run)) is not None])
        if known is not None:
            found[draw] = known.value
    return found


def _mean_cell(heading: str, values: dict[str, dict[WorldAndSeed, float]], runs: int) -> Cell:
    """Returns the mean of a figure over the runs of an arm.

    Args:
        heading: of the figure's column.
        values: heading -> world and seed -> value.
        runs: number of runs of the arm.
    """
    own = values[heading]
    missing = f"none in {runs - len(own)}" if len(own) < runs else ""
    found = mean_with_interval(list(own.values()))
    if found is not None and heading == KEPT:
        found = found.as_share()
    return _interval_cell(found, list(own.values()), missing)


def _difference_cells(values: dict[WorldAndSeed, float], first: dict[WorldAndSeed, float]) -> tuple[Cell, Cell]:
    """Returns the difference, and the conclusion that its interval allows."""
    found = mean_paired_difference(values, first)
    pairs = [value - first[draw] for draw, value in values.items() if draw in first]
    if found is None or found.holds_zero is None:
        return _interval_cell(found, pairs, ""), Cell("unknown: fewer than two pairs have it")
    conclusion = "not distinguishable" if found.holds_zero else "higher" if found.value > 0 else "lower"
    return _interval_cell(found, pairs, ""), Cell(conclusion)


def _interval_cell(found: Mean | None, values: Sequence[float], text: str) -> Cell:
    if found is None:
        return Cell(text, is_figure=True)
    if found.n == 2:
        # The t-interval of two values is 13 times their standard error wide: the values themselves say more.
        both = f"of {' and '.join(map(signed, values))}"
        return Cell(f"{both} {text}".rstrip(), value=found.value, n=found.n, is_figure=True)
    return Cell(text, value=found.value, low=found.low, high=found.high, n=found.n, is_figure=True)


def _arm_name(arm: Arm, settings: dict[str, object]) -> str:
    run = arm.runs[0]
    chosen = [run.made_by] if run.checkpoint else [run.choice(name) for name in GROUPS]
    own = [f"{key}={setting_text(value)}" for key, value in settings.items()]
    return " ".join([*(name for name in chosen if name not in ("", "none")), *own]) or "none"


def _arm_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that define an arm: all but world, seed, and those that change no result."""
    own = copy.deepcopy({key: value for key, value in config.items() if key not in (*NOT_SETTINGS, "seed")})
    for key in ("world", "seed"):
        own.get("dataset", {}).pop(key, None)
    return own


def _world_and_seed(config: dict[str, Any]) -> WorldAndSeed:
    data = config.get("dataset") or {}
    return json.dumps([data.get("world"), data.get("seed"), config.get("seed")])
