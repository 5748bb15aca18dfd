"""The attack table and the heat map of knowledge left."""

from __future__ import annotations

import csv
import io
from typing import Any

from erulab.attacks.judging.columns import row_without_figures
from erulab.reporting import RunResult, attack_table, heat_table, load_run
from erulab.reporting.attack_rows import Standing
from erulab.reporting.attack_tables import heat_map
from tests.reporting.conftest import ATTACKS, MakeRun, attack_row, attacked


def run_with(make_run: MakeRun, rows: list[dict[str, Any]]) -> RunResult:
    return load_run(make_run(attacks=rows))


def shown(run: RunResult) -> list[dict[str, str]]:
    table = attack_table(run)
    return [dict(zip(table.headings, (cell.shown for cell in row), strict=True)) for row in table.rows]


def test_one_row_per_attack_and_setting(make_run: MakeRun) -> None:
    chosen = {
        "target": [{"layer": 3}, {"layer": 3}],
        "unlearned": [{"layer": 2}, {"layer": 3}],
        "oracle": [{"layer": 3}] * 2,
    }
    own = {"chosen": chosen, "repeats": [0.1, None, 0.25], "utility": 0.8, "utility_attacked": 0.6}
    same = {model: [{"share": 0.1}] for model in chosen}
    rows = [
        attack_row("probe", {"kind": "linear"}, 0.2, **own),
        attack_row("prune", {}, 0.1, chosen=same, repeats=[0.05, 0.1], flops=0.0),
        *ATTACKS,
        row_without_figures("gcg", {}, "not run: no GPU"),
    ]
    lines = shown(run_with(make_run, rows))
    assert len(lines) == 8
    assert lines[0]["chosen"] == "target layer=3; unlearned layer=2 or layer=3; oracle layer=3"
    assert lines[0]["repeats"] == "0.10 to 0.25 (3, 1 undefined)" and lines[0]["utility kept"] == "0.75"
    assert (lines[0]["steps"], lines[0]["FLOPs"], lines[0]["time"]) == ("38", "5.10e10", "3.5 s")
    assert lines[1]["chosen"] == "share=0.1" and lines[1]["FLOPs"] == "0" and lines[1]["repeats"] == "0.05 to 0.10 (2)"
    assert [line["valid"] for line in lines[2:]] == ["yes", "yes", "not valid", "yes", "undefined", "no figures"]
    assert lines[-1]["why not"] == "not run: no GPU" and lines[2]["why not"] == ""


def test_csv_keeps_budgets_as_numbers(make_run: MakeRun) -> None:
    run = run_with(make_run, [attack_row("relearn", {}, 0.1, flops=51098717440.0)])
    (line,) = csv.DictReader(io.StringIO(attack_table(run).render("csv")))
    assert float(line["FLOPs"]) == 51098717440.0


def test_heat_map_cells_have_values_only_if_the_row_counts(make_run: MakeRun) -> None:
    rows = [
        *attacked("relearn", {"samples": 5}, 0.2),
        *attacked("prune", {"share": 0.5}, 0.9, valid=False),
        *attacked("quantize", {"bits": 4}, None),
        attack_row("mia", {}, 0.1, metric="forget/auc_min_k"),
        row_without_figures("gcg", {}, "failed on the oracle: x"),
    ]
    run = run_with(make_run, rows)
    found = heat_map(run)
    assert found.metrics == ("log_odds", "forget/choice", "forget/auc_min_k")  # no retain suite
    assert found.rows == ("relearn samples=5", "prune share=0.5", "quantize bits=4", "mia", "gcg")
    counts, absent = Standing.counts, (Standing.absent, None)
    assert found.cells[0] == ((counts, 0.2), (counts, 0.2), None)
    assert [cell[0] for cell in found.cells[1] if cell] == [Standing.invalid] * 2
    assert [cell[0] for cell in found.cells[2] if cell] == [Standing.undefined] * 2
    assert found.cells[3] == (None, None, (counts, 0.1))
    assert found.cells[4] == (absent,) * 3
    table = heat_table(run)
    assert table is not None
    md = table.render("md").splitlines()
    assert "| prune share=0.5 | not valid | not valid |  |" in md and "| mia |  |  | 0.10 |" in md
    assert heat_table(run_with_nothing(run)) is None


def run_with_nothing(run: RunResult) -> RunResult:
    run.attacks.clear()
    return run
