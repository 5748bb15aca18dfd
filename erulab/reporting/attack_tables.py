"""Tables of attacks: the headline of each setting, every row, and K by attack and metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from erulab.reporting.attack_rows import (
    AttackRow,
    Standing,
    attack_label,
    group_by_setting,
    headline_rows,
    reason_of,
    remarks_of,
    setting_words,
    standing_of,
)
from erulab.reporting.load import MODELS, RunResult
from erulab.reporting.numbers import MISSING, number, power, seconds, signed, thousands
from erulab.reporting.rendering import Cell, Table

MEANS = (*MODELS, *(f"attacked_{model}" for model in MODELS))
COMPARED = ("residual", "residual_attacked", "recovered", "maintained_gap", "maintained_error")
NOTE = (
    "Budget: steps, FLOPs and time of the attacker of the unlearned model, of one repeat, without what scoring took. "
    "Chosen: what the validation half of the facts picked, for each model by itself. Repeats: lowest to highest K."
)
HEAT_NOTE = (
    "K after the attack (1 = target, 0 = oracle). Empty: the attack does not measure this metric. Marked cells say "
    "nothing about robustness."
)


@dataclass(frozen=True)
class HeatMap:
    """K after each attack and setting (rows) on each metric (columns); None where the attack lacks the metric."""

    rows: tuple[str, ...]
    metrics: tuple[str, ...]
    cells: tuple[tuple[tuple[Standing, float | None] | None, ...], ...]


def attack_table(run: RunResult) -> Table:
    """The headline row of each attack and setting."""
    headings = (
        "attack",
        "setting",
        "chosen",
        "metric",
        "K",
        "K attacked",
        "repeats",
        "utility kept",
        "steps",
        "FLOPs",
        "time",
        "n",
        "valid",
        "why not",
    )
    rows = []
    for row in headline_rows(run.attacks):
        rows.append(
            (
                Cell(str(row["attack"])),
                Cell(setting_words(row["setting"])),
                Cell(_chosen(row)),
                Cell(str(row["metric"])),
                _plain(row, "residual"),
                _attacked(row),
                Cell(_repeats(row)),
                _utility_kept(row),
                *_budget(row),
                _count(row),
                Cell(standing_of(row).mark),
                Cell("" if standing_of(row) is Standing.counts else reason_of(row)),
            )
        )
    return Table(headings, tuple(rows), (NOTE,) if rows else ())


def every_attack_row(run: RunResult) -> Table:
    """Every row of attacks.json with every figure."""
    rows = []
    for group in group_by_setting(run.attacks):
        for row in (*group.rows, *([group.utility] if group.utility else [])):
            figures = [
                _attacked(row) if name == "residual_attacked" else _plain(row, name) for name in (*MEANS, *COMPARED)
            ]
            valid = "utility" if row is group.utility else standing_of(row).mark
            rows.append(
                (
                    Cell(str(row["attack"])),
                    Cell(setting_words(row["setting"])),
                    Cell(str(row["metric"])),
                    *figures,
                    _utility_kept(row),
                    *_budget(row),
                    _count(row),
                    Cell(valid),
                    Cell(remarks_of(row)),
                )
            )
    names = [name.replace("_", " ") for name in (*MEANS, *COMPARED)]
    headings = ("attack", "setting", "metric", *names, "utility kept", "steps", "FLOPs", "time", "n", "valid", "note")
    return Table(headings, tuple(rows))


def heat_map(run: RunResult) -> HeatMap:
    """Retain suites are left out: K is of what must be forgotten."""
    found = group_by_setting(run.attacks)
    heads = headline_rows(run.attacks)
    metrics = tuple(dict.fromkeys(str(row["metric"]) for group in found if group.headline["n"] for row in group.rows))
    cells = []
    for group in found:
        own = {str(row["metric"]): row for row in group.rows}
        if standing_of(group.headline) is Standing.absent:  # it measured nothing, on no metric
            own = dict.fromkeys(metrics, group.headline)
        cells.append(
            tuple(
                (standing_of(own[name]), number(own[name]["residual_attacked"])) if name in own else None
                for name in metrics
            )
        )
    return HeatMap(tuple(attack_label(group.headline, heads) for group in found), metrics, tuple(cells))


def heat_table(run: RunResult) -> Table | None:
    """The heat map as a table; None where no attack measured anything."""
    heat = heat_map(run)
    if not heat.metrics:
        return None
    rows = []
    for label, cells in zip(heat.rows, heat.cells, strict=True):
        rows.append((Cell(label), *(Cell() if cell is None else _heat(*cell) for cell in cells)))
    return Table(("attack", *heat.metrics), tuple(rows), (HEAT_NOTE,))


def _heat(which: Standing, value: float | None) -> Cell:
    if which is Standing.counts:
        return Cell(value=value, is_figure=True, written=signed(value))
    return Cell(which.mark, is_figure=True)


def _plain(row: AttackRow, name: str) -> Cell:
    return Cell(value=number(row[name]), is_figure=True)


def _attacked(row: AttackRow) -> Cell:
    value, low, high = (number(row[key]) for key in ("residual_attacked", "low", "high"))
    return Cell(value=value, low=low, high=high, is_figure=True)


def _utility_kept(row: AttackRow) -> Cell:
    before, after = number(row["utility"]), number(row["utility_attacked"])
    return Cell(value=after / before if before and after is not None else None, is_figure=True)


def _budget(row: AttackRow) -> tuple[Cell, Cell, Cell]:
    steps, flops, took = (number(row[key]) for key in ("steps", "flops", "seconds"))
    return (
        Cell(value=steps, is_figure=True, written=thousands(steps)),
        Cell(value=flops, is_figure=True, written="0" if flops == 0 else power(flops)),
        Cell(value=took, is_figure=True, written=seconds(took)),
    )


def _count(row: AttackRow) -> Cell:
    n = number(row["n"])
    return Cell(value=n, is_figure=True, written=thousands(n))


def _repeats(row: AttackRow) -> str:
    """`.31 to .34 (3)`, with a dash in place of a repeat under which K is undefined."""
    values = [number(value) for value in row["repeats"]]
    known = [value for value in values if value is not None]
    if not values:
        return ""
    spread = f"{signed(min(known))} to {signed(max(known))}" if known else MISSING
    undefined = f", {len(values) - len(known)} undefined" if len(known) < len(values) else ""
    return f"{spread} ({len(values)}{undefined})"


def _chosen(row: AttackRow) -> str:
    """What each model's attacker settled on; one word where all agree. Repeats that differ are all named."""
    chosen: dict[str, list[dict[str, Any]]] = row["chosen"]
    words = {model: " or ".join(dict.fromkeys(setting_words(one) for one in kept)) for model, kept in chosen.items()}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{model} {words[model]}" for model in MODELS if model in words)
