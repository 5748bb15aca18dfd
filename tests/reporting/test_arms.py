"""Arms (runs that differ in world and seed only) are compared pair by pair."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from erulab.attacks.judging.columns import row_without_figures
from erulab.reporting import arm_tables, compare, load_runs
from erulab.reporting.arms import group_into_arms
from erulab.reporting.rendering import Cell, Table
from tests.reporting.conftest import SCORES, MakeRun, attacked
from tests.reporting.test_trajectories import ORACLE, TARGET, line

K = {"eru": [0.1, 0.2, 0.0], "npo": [0.31, 0.39, 0.22]}


def folders(make_run: MakeRun, worlds: int = 3, **changes: Any) -> list[Path]:
    made = []
    for world in range(worlds):
        for method, values in K.items():
            scores = copy.deepcopy(SCORES)
            scores["unlearned"]["knowledge_left"] = values[world]
            valid = not (method == "npo" and world == 0)
            rows = attacked("relearn", {"samples": 5}, values[world] + 0.1, valid=valid)
            config = {"method.name": method, "dataset.world": world, "output": f"outputs{world}"}
            own = {"scores": scores, "attacks": rows} | changes
            made.append(make_run(f"{method}-{world}", config=config, **own))
    return made


def cells(table: Table, row: int) -> dict[str, Cell]:
    return dict(zip(table.headings, table.rows[row], strict=True))


def test_runs_that_differ_in_world_and_seed_are_one_arm(make_run: MakeRun) -> None:
    made = [
        make_run("a", config={"dataset.world": 1, "seed": 2, "output": "x"}),
        make_run("b", config={"seed": 1}),
        make_run("c", config={"trainer.lr": 0.1}),
        make_run("d", config={"dataset.world": 1, "seed": 2}),
    ]
    found = group_into_arms(load_runs(made))
    assert [[run.name for run in arm.runs] for arm in found] == [["a", "b", "d"], ["c"]]
    assert len(found[0].draws) == 2  # a and d are one draw


def test_means_and_paired_differences(make_run: MakeRun) -> None:
    means, differences = arm_tables(load_runs(folders(make_run)))
    assert [row[0].text for row in means.rows] == ["eru elastic rfa", "npo elastic rfa"]
    own = cells(means, 1)
    low, high = stats.t.interval(0.95, 2, loc=0.92 / 3, scale=stats.sem(K["npo"]))
    assert own["runs"].text == "3" and own["knowledge left"].n == 3
    assert (own["knowledge left"].value, own["knowledge left"].low, own["knowledge left"].high) == pytest.approx(
        (0.92 / 3, low, high)
    )
    # npo's attack on world 0 is not valid: it is left out of the mean, and the cell says so.
    after = own["knowledge left after relearn"]
    assert (after.n, after.low, after.text) == (2, None, "of 0.49 and 0.32 none in 1")
    found = {figure.text: (value, said.text) for _, figure, value, said in differences.rows}
    by_hand = stats.ttest_rel(K["npo"], K["eru"]).confidence_interval()
    value, said = found["knowledge left"]
    assert (value.low, value.high) == pytest.approx((by_hand.low, by_hand.high)) and said == "higher"
    value, said = found["utility kept"]
    assert value.value == 0 and said == "not distinguishable"
    assert found["knowledge left after relearn"][0].n == 2
    assert differences.headings[2] == "minus eru elastic rfa" and differences.rows[0][0].text == "npo elastic rfa"


def test_an_attack_without_a_valid_result_keeps_its_column(make_run: MakeRun) -> None:
    made = folders(make_run, worlds=2, attacks=[row_without_figures("gcg", {}, "not run: no GPU")])
    means, differences = arm_tables(load_runs(made))
    assert cells(means, 0)["knowledge left after gcg"].text == "none in 2"
    said = [row[3].text for row in differences.rows if row[1].text == "knowledge left after gcg"]
    assert said == ["unknown: fewer than two pairs have it"]


def test_no_table_if_each_arm_has_one_run(make_run: MakeRun) -> None:
    made = folders(make_run, worlds=1)
    assert arm_tables(load_runs(made)) == [] and "Runs of one arm" not in compare(made)


def test_copies_of_a_run_do_not_form_an_arm(make_run: MakeRun) -> None:
    made = [make_run("a", config={"output": "x"}), make_run("b", config={"output": "y"})]
    assert arm_tables(load_runs(made)) == []


@pytest.mark.parametrize("format", ["text", "md", "html"])
def test_the_comparison_shows_the_arms(make_run: MakeRun, format: str) -> None:
    text = compare(folders(make_run, worlds=2), format)
    assert "not distinguishable" in text and "Runs of one arm" in text


def test_csv_holds_the_table_of_runs_only(make_run: MakeRun) -> None:
    assert "Runs of one arm" not in compare(folders(make_run, worlds=2), "csv")


def test_arms_are_compared_at_matched_utility(make_run: MakeRun) -> None:
    scores = {"target": TARGET, "unlearned": SCORES["unlearned"], "oracle": ORACLE}
    # Utility falls from 1 to 0.5 while pooled log-odds fall from 2.5 to 0.75, that is K from 1 to 0.65.
    lines = [line(0, 4.0, 2.0, 1.0, 0.8), line(9, 0.0, 1.0, 1.0, 0.4)]
    runs = load_runs(folders(make_run, worlds=2, metrics=lines, scores=scores))
    assert cells(arm_tables(runs)[0], 0)["least knowledge left at utility 0.97 or more"].value == pytest.approx(
        1 - 0.35 * 0.03 / 0.5
    )
    assert cells(arm_tables(runs, 0.75)[0], 0)["least knowledge left at utility 0.75 or more"].value == pytest.approx(
        0.825
    )
    html = compare([run.path for run in runs], "html")
    assert html.count('class="plot wide"') == 2  # trade-off and trajectories
