"""Intervals of figures: against independent resampling in a few lines, and at the ends of their range."""

from __future__ import annotations

import math

import numpy as np
import pytest

from erulab.data.measures import Pooled, Separation
from erulab.data.rows import Benchmark, Role, Suite
from erulab.evaluation.aggregate import against_oracle, aggregate
from erulab.evaluation.figures import resampling
from erulab.evaluation.intervals import intervals, ratio_interval
from erulab.evaluation.row_score import RowScore

SUITES = (
    Suite("forget", Role.FORGET, ()),
    Suite("heldout", Role.HELDOUT, ()),
    Suite("retain", Role.RETAIN, (), in_utility=True),
    Suite("facts", Role.RETAIN, (), in_utility=True),
    Suite("members", Role.FORGET, ()),
    Suite("others", Role.UNSEEN, ()),
)
BENCHMARK = Benchmark(
    "mine", SUITES, (Pooled("all", "choice", ("forget", "heldout")), Separation("mia", "members", "others"))
)


def model_rows(seed: int, n: int = 40, **fixed: float) -> list[RowScore]:
    """Random figures of n facts per suite; `fixed` holds figures that are the same in all rows."""
    rng = np.random.default_rng(seed)
    rows = []
    for suite in SUITES:
        for i in range(n):
            figures = {"probability": rng.uniform(0.2, 0.9), "rouge": rng.uniform(0.3, 1.0), "log_odds": rng.normal()}
            figures |= {"choice": float(rng.uniform() < 0.4), "log_truth_ratio": rng.normal(), "nll": rng.uniform()}
            figures |= {"log_truth_ratio_arithmetic": rng.normal(), "min_k": rng.normal(float(suite.name == "others"))}
            compat = {"probability": 0.1 + 0.8 * rng.uniform(), "truth_ratio": math.exp(rng.normal()), "rouge": 0.5}
            fact = f"{'forget' if suite.role in (Role.FORGET, Role.HELDOUT) else suite.name}/{i}"
            rows.append(
                RowScore(f"{suite.name}/{i}", suite.name, suite.role.value, fact, "", figures | fixed, "", compat)
            )
    return rows


def figures_of(rows: list[RowScore], oracle: list[RowScore]) -> dict[str, float]:
    return aggregate(rows, BENCHMARK) | against_oracle(rows, oracle, BENCHMARK)


def plain_bootstrap(rows: list[RowScore], oracle: list[RowScore], figure: str, count: int = 300) -> list[float]:
    """Draws facts suite by suite with Python's own aggregation: 95 % percentiles of a figure."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(count):
        drawn: list[list[RowScore]] = [[], []]
        picks = {name: rng.choice(40, 40) for name in ("forget", "retain", "facts", "others")}
        for model, own in enumerate((rows, oracle)):
            for s, suite in enumerate(SUITES):
                of_suite = own[40 * s : 40 * s + 40]
                kind = "forget" if suite.role in (Role.FORGET, Role.HELDOUT) else suite.name
                drawn[model] += [of_suite[i] for i in picks[kind]]
        found.append(figures_of(*drawn)[figure])
    return [float(bound) for bound in np.quantile(found, [0.025, 0.975])]


@pytest.mark.parametrize(
    "figure",
    [
        "forget/choice",
        "forget/truth_ratio",
        "retain/truth_ratio_arithmetic",
        "knowledge",
        "model_utility",
        "all/choice",
        "mia/auc_min_k",
        "mia/privleak",
        "open_unlearning/forget/truth_ratio",
        "open_unlearning/model_utility",
    ],
)
def test_an_interval_is_that_of_resampling_the_rows_themselves(figure: str) -> None:
    rows, oracle = model_rows(0), model_rows(1)
    values = {"unlearned": figures_of(rows, oracle), "oracle": figures_of(oracle, oracle)}
    if figure == "open_unlearning/model_utility":
        assert figure in values["unlearned"]
    low, high = intervals(values, {"unlearned": rows, "oracle": oracle}, BENCHMARK)["unlearned"][figure]
    plain = plain_bootstrap(rows, oracle, figure)
    assert [low, high] == pytest.approx(plain, abs=0.15 * (plain[1] - plain[0]))
    assert low <= values["unlearned"][figure] <= high


def test_every_figure_of_rows_has_an_interval_and_counts_and_p_values_have_none() -> None:
    rows, oracle = model_rows(0), model_rows(1)
    values = figures_of(rows, oracle)
    found = intervals({"unlearned": values}, {"unlearned": rows, "oracle": oracle}, BENCHMARK)["unlearned"]
    without = {name for name in values if name not in found}
    constant = {f"open_unlearning/{suite.name}/rouge" for suite in SUITES}
    assert {name for name in without if not name.endswith("/n")} == {
        "forget_quality",
        "open_unlearning/forget_quality",
        *constant,
    }


def test_resamples_that_draw_every_fact_once_give_the_figures_of_scores_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        resampling.FactResamples, "_draw_block", lambda self, rng: np.ones((resampling.BLOCK, len(self.facts)))
    )
    monkeypatch.setattr(resampling, "is_constant", lambda values: False)
    rows, oracle = model_rows(0), model_rows(1)
    values = figures_of(rows, oracle)
    found = intervals({"unlearned": values}, {"unlearned": rows, "oracle": oracle}, BENCHMARK)["unlearned"]
    assert "mia/privleak" in found and "open_unlearning/model_utility" in found
    for name, (low, high) in found.items():
        assert (low, high) == pytest.approx((values[name], values[name]), rel=1e-9), name


def test_shares_stay_in_their_range_and_have_wilson_s_interval_at_its_ends() -> None:
    rows = model_rows(0, choice=1.0, rouge=0.0, nll=0.0)
    found = intervals({"target": aggregate(rows, BENCHMARK)}, {"target": rows}, BENCHMARK)["target"]
    margin = 1.959964**2 / (40 + 1.959964**2)
    assert found["forget/choice"] == pytest.approx((1 - margin, 1.0))
    assert found["retain/rouge"] == pytest.approx((0.0, margin))
    # Forget and held-out suite phrase the same 40 facts: 80 rows do not make the interval narrower.
    assert found["all/choice"] == pytest.approx((1 - margin, 1.0))
    assert "retain/nll" not in found  # no share, and no spread
    # Model utility, of components one of which is 0 in every row, is not thereby certain to be 0.
    low, high = found["model_utility"]
    assert low == 0.0 and 0.05 < high < 0.5


def test_one_fact_gives_no_interval() -> None:
    rows = model_rows(0, n=1)
    assert intervals({"target": aggregate(rows, BENCHMARK)}, {"target": rows}, BENCHMARK) == {"target": {}}


@pytest.mark.parametrize("figure", ["retain/probability", "retain/choice", "model_utility", "all/choice"])
def test_a_share_of_the_target_s_figure_is_resampled_in_pairs(figure: str) -> None:
    target, model = model_rows(0), model_rows(0)
    for row in model:  # 0.8 of the target's figures, fact by fact: no spread is left
        row.figures.update({name: 0.8 * row.figures[name] for name in ("probability", "rouge", "choice")})
    found = ratio_interval(model, target, figure, BENCHMARK)
    if figure == "model_utility":
        components = [f"{s}/{n}" for s in ("retain", "facts") for n in ("probability", "rouge", "truth_ratio")]
        before, after = aggregate(target, BENCHMARK), aggregate(model, BENCHMARK)
        expected = sum(1 / before[c] for c in components) / sum(1 / after[c] for c in components)
        assert found.value == pytest.approx(expected) and found.high - found.low < 0.05  # type: ignore[operator]
    else:
        margin = 1.959964**2 / (40 + 1.959964**2) / aggregate(target, BENCHMARK)[figure]
        assert found.value == pytest.approx(0.8)
        assert (found.low, found.high) == pytest.approx((0.8 - margin, 0.8 + margin))
    assert found.low <= found.low90 <= found.value <= found.high90 <= found.high  # type: ignore[operator]


def test_the_share_kept_of_independent_models_has_the_delta_method_s_interval() -> None:
    target, model = model_rows(0, n=400), model_rows(1, n=400)
    found = ratio_interval(model, target, "retain/probability", BENCHMARK)
    own, before = (
        np.array([row.figures["probability"] for row in rows if row.suite == "retain"]) for rows in (model, target)
    )
    ratio = own.mean() / before.mean()
    half = 1.96 * (own - ratio * before).std() / before.mean() / math.sqrt(400)
    assert found.value == pytest.approx(ratio)
    assert (found.low, found.high) == pytest.approx((ratio - half, ratio + half), abs=0.15 * half)
    assert (found.high90 - found.low90) / 2 == pytest.approx(half * 1.645 / 1.96, rel=0.1)  # type: ignore[operator]


def test_a_few_right_answers_of_both_models_do_not_prove_that_utility_is_kept() -> None:
    rows = model_rows(0, n=4, choice=1.0)
    found = ratio_interval(rows, model_rows(1, n=4, choice=1.0), "retain/choice", BENCHMARK)
    assert found.value == 1.0 and found.low < 0.7 and found.low90 < 0.8  # type: ignore[operator]


def test_shares_that_are_undefined_say_why() -> None:
    rows, none = model_rows(0), model_rows(0, choice=0.0)
    assert ratio_interval(rows, none, "retain/choice", BENCHMARK).reason == "the target's retain/choice is 0"
    assert "was not scored" in ratio_interval(rows, rows, "retain/exact_match", BENCHMARK).reason
    alone = ratio_interval(model_rows(0, n=1), model_rows(1, n=1), "retain/probability", BENCHMARK)
    assert alone.value is not None and alone.low is None and "too few facts" in alone.reason
