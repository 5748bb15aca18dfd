"""Tables of attacks: the headline of each setting, every row, and knowledge left by attack and metric."""

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
from erulab.reporting.numbers import MISSING, duration, number, power, signed, thousands
from erulab.reporting.rendering import Cell, Table

MEANS = (*MODELS, *(f"attacked_{model}" for model in MODELS))
# Figure of attacks.json -> heading.
COMPARED = {
    "knowledge_left": "knowledge left",
    "knowledge_left_attacked": "after attack",
    "recovered": "recovered",
    "maintained_gap": "maintained gap",
    "maintained_error": "maintained error",
}
NOTE = (
    "Steps, FLOPs and time: the attacker's cost on the unlearned model, for one repeat, without scoring. Chosen: the "
    "attempt that did best on the validation half of the facts, for each model by itself. Repeats: lowest to highest "
    "knowledge left. Utility kept: share of the unlearned model's utility before the attack."
)
HEAT_NOTE = (
    "Knowledge left after the attack (1 = as the target, 0 = as the oracle). Empty: the attack does not measure this "
    "metric. Cells with a word in place of a figure say nothing about robustness."
)


@dataclass(frozen=True)
class HeatMap:
    """Knowledge left after each attack and setting (rows) on each metric (columns).

    cells: standing and value; None if the attack does not measure the metric.
    """

    rows: tuple[str, ...]
    metrics: tuple[str, ...]
    cells: tuple[tuple[tuple[Standing, float | None] | None, ...], ...]


def attack_table(run: RunResult) -> Table:
    """Returns the table of headline rows, one per attack and setting."""
    headings = (
        "attack",
        "setting",
        "chosen",
        "metric",
        "knowledge left",
        "after attack",
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
                Cell(_chosen_text(row)),
                Cell(str(row["metric"])),
                _figure_cell(row, "knowledge_left"),
                _attacked_cell(row),
                Cell(_repeats_text(row)),
                _utility_cell(row),
                *_budget_cells(row),
                _count_cell(row),
                Cell(standing_of(row).mark),
                Cell("" if standing_of(row) is Standing.counts else reason_of(row)),
            )
        )
    return Table(headings, tuple(rows), (NOTE,) if rows else ())


def every_attack_row_table(run: RunResult) -> Table:
    """Returns the table of all rows of attacks.json with all their figures."""
    rows = []
    for group in group_by_setting(run.attacks):
        for row in (*group.rows, *([group.utility] if group.utility else [])):
            figures = [
                _attacked_cell(row) if name == "knowledge_left_attacked" else _figure_cell(row, name)
                for name in (*MEANS, *COMPARED)
            ]
            valid = "utility" if row is group.utility else standing_of(row).mark
            rows.append(
                (
                    Cell(str(row["attack"])),
                    Cell(setting_words(row["setting"])),
                    Cell(str(row["metric"])),
                    *figures,
                    _utility_cell(row),
                    *_budget_cells(row),
                    _count_cell(row),
                    Cell(valid),
                    Cell(remarks_of(row)),
                )
            )
    names = [COMPARED.get(name, name.replace("_", " ")) for name in (*MEANS, *COMPARED)]
    headings = ("attack", "setting", "metric", *names, "utility kept", "steps", "FLOPs", "time", "n", "valid", "note")
    return Table(headings, tuple(rows))


def heat_map(run: RunResult) -> HeatMap:
    """Collects knowledge left by attack and metric. Retain suites are left out, because they must not be forgotten."""
    found = group_by_setting(run.attacks)
    heads = headline_rows(run.attacks)
    metrics = tuple(dict.fromkeys(str(row["metric"]) for group in found if group.headline["n"] for row in group.rows))
    cells = []
    for group in found:
        own = {str(row["metric"]): row for row in group.rows}
        if standing_of(group.headline) is Standing.absent:  # it measured no metric
            own = dict.fromkeys(metrics, group.headline)
        cells.append(
            tuple(
                (standing_of(own[name]), number(own[name]["knowledge_left_attacked"])) if name in own else None
                for name in metrics
            )
        )
    return HeatMap(tuple(attack_label(group.headline, heads) for group in found), metrics, tuple(cells))


def heat_table(run: RunResult) -> Table | None:
    """Returns the heat map as a table; None if no attack measured anything."""
    heat = heat_map(run)
    if not heat.metrics:
        return None
    rows = []
    for label, cells in zip(heat.rows, heat.cells, strict=True):
        rows.append((Cell(label), *(Cell() if cell is None else _heat_cell(*cell) for cell in cells)))
    return Table(("attack", *heat.metrics), tuple(rows), (HEAT_NOTE,))


def _heat_cell(which: Standing, value: float | None) -> Cell:
    if which is Standing.counts:
        return Cell(value=value, is_figure=True, written=signed(value))
    return Cell(which.mark, is_figure=True)


def _figure_cell(row: AttackRow, name: str) -> Cell:
    return Cell(value=number(row[name]), is_figure=True)


def _attacked_cell(row: AttackRow) -> Cell:
    value, low, high = (number(row[key]) for key in ("knowledge_left_attacked", "low", "high"))
    return Cell(value=value, low=low, high=high, is_figure=True)


def _utility_cell(row: AttackRow) -> Cell:
    before, after = number(row["utility"]), number(row["utility_attacked"])
    return Cell(value=after / before if before and after is not None else None, is_figure=True)


def _budget_cells(row: AttackRow) -> tuple[Cell, Cell, Cell]:
    steps, flops, took = (number(row[key]) for key in ("steps", "flops", "seconds"))
    return (
        Cell(value=steps, is_figure=True, written=thousands(steps)),
        Cell(value=flops, is_figure=True, written="0" if flops == 0 else power(flops)),
        Cell(value=took, is_figure=True, written=duration(took)),
    )


def _count_cell(row: AttackRow) -> Cell:
    n = number(row["n"])
    return Cell(value=n, is_figure=True, written=thousands(n))


def _repeats_text(row: AttackRow) -> str:
    """Writes `0.31 to 0.34 (3)`: lowest and highest knowledge left of the repeats, and how many there were."""
    values = [number(value) for value in row["repeats"]]
    known = [value for value in values if value is not None]
    if not values:
        return ""
    extremes = f"{signed(min(known))} to {signed(max(known))}" if known else MISSING
    undefined = f", {len(values) - len(known)} undefined" if len(known) < len(values) else ""
    return f"{extremes} ({len(values)}{undefined})"


def _chosen_text(row: AttackRow) -> str:
    """Names the attempt chosen for each model, once if all agree; repeats that differ are joined by `or`."""
    chosen: dict[str, list[dict[str, Any]]] = row["chosen"]
    texts = {model: " or ".join(dict.fromkeys(setting_words(one) for one in kept)) for model, kept in chosen.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{model} {texts[model]}" for model in MODELS if model in texts)
