"""Faithfulness and robustness of figures, by closed forms on made-up scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from erulab.study.trust import JudgedModel, common_figures, figure_direction, judge_figure


def model(run: str, role: str, value: float, knows: bool | None, name: str = "", **after: float) -> JudgedModel:
    """Returns a model with one figure, "m"; `relearned` and `quantised` are its values after these."""
    changed = {key: {"m": one} for key, one in after.items()}
    return JudgedModel(run, role, name or role, knows, {"m": value}, **changed)


PAIR = [model("a", "target", 0.9, True), model("a", "oracle", 0.1, False, relearned=0.3)]


def judge(models: list[JudgedModel], direction: int = 1) -> object:
    return judge_figure("m", direction, models, [m for m in models if m.role == "unlearned"], draws=200, seed=0)


def test_the_auc_is_the_rank_sum_statistic_and_hiders_count_in_one_of_two() -> None:
    rng = np.random.default_rng(0)
    knows, hides, lacks = rng.normal(1, 1, 12).round(1), rng.normal(0.3, 1, 5).round(1), rng.normal(0, 1, 9).round(1)
    models = [model(f"r{i % 4}", "target", v, True) for i, v in enumerate(knows)]
    models += [model(f"r{i % 4}", "hider", v, True) for i, v in enumerate(hides)]
    models += [model(f"r{i % 4}", "oracle", v, False) for i, v in enumerate(lacks)]
    found = judge_figure("m", 1, models, [], draws=300, seed=0)
    for auc, pool in ((found.faithfulness, knows), (found.with_hiders, [*knows, *hides])):
        assert auc.value == pytest.approx(mannwhitneyu(pool, lacks).statistic / (len(pool) * len(lacks)))
        assert auc.low <= auc.value <= auc.high
    turned = [replace(one, figures={"m": -one.figures["m"]}) for one in models]
    assert judge_figure("m", -1, turned, [], draws=300, seed=0).with_hiders == found.with_hiders


def test_a_figure_that_separates_has_one_and_one_that_is_constant_a_half() -> None:
    separate = [model(run, role, v, role == "target") for run in "ab" for role, v in (("target", 1.0), ("oracle", 0.0))]
    found = judge_figure("m", 1, separate, [], draws=100, seed=0)
    assert (found.faithfulness.value, found.faithfulness.low, found.faithfulness.high) == (1.0, 1.0, 1.0)
    constant = [replace(one, figures={"m": 0.3}) for one in separate]
    assert judge_figure("m", 1, constant, [], draws=100, seed=0).faithfulness.value == 0.5


def test_the_interval_draws_whole_runs() -> None:
    """One run separates and one does the opposite. Drawn alone they give 1 and 0; models would give less extremes."""
    models = [model("a", "target", 1.0, True), model("a", "oracle", 0.0, False)] * 10
    models += [model("b", "target", 0.4, True), model("b", "oracle", 0.6, False)] * 10
    found = judge_figure("m", 1, models, [], draws=500, seed=0).faithfulness
    assert (found.low, found.high) == (0.0, 1.0) and found.value == pytest.approx(0.75)


def test_robustness_is_the_share_of_the_gap_that_comes_back_unseen() -> None:
    # Gap .8, the oracle gains .2: a gain of .6 is .4 too much, half of the gap. Rounding brings back .2, a quarter.
    found = judge([*PAIR, model("a", "unlearned", 0.2, None, relearned=0.8, quantised=0.4)])
    assert (found.relearning, found.quantisation) == (pytest.approx(0.5), pytest.approx(0.75))
    assert found.robustness == pytest.approx(2 / (1 / 0.5 + 1 / 0.75))
    # OpenUnlearning's: .2 / .6 and .2 / .4.
    assert (found.relearning_ratio, found.quantisation_ratio) == (pytest.approx(1 / 3), pytest.approx(0.5))


def test_robustness_does_not_change_with_scale_shift_and_sign() -> None:
    own = [*PAIR, model("a", "unlearned", 0.2, None, relearned=0.8, quantised=0.4)]

    def mapped(one: JudgedModel) -> JudgedModel:
        parts = {key: getattr(one, key) for key in ("figures", "relearned", "quantised")}
        return replace(one, **{key: part and {"m": 7 - 20 * part["m"]} for key, part in parts.items()})

    found = judge([mapped(one) for one in own], -1)
    assert (found.relearning, found.quantisation) == (pytest.approx(0.5), pytest.approx(0.75))
    assert found.relearning_ratio is None  # not a score in [0, 1]


@pytest.mark.parametrize(("again", "rounded", "both"), [(0.4, 0.2, 1.0), (0.0, 0.0, 1.0), (1.5, 1.5, 0.0)])
def test_what_brings_nothing_back_gives_one_and_a_whole_target_gives_zero(
    again: float, rounded: float, both: float
) -> None:
    found = judge([*PAIR, model("a", "unlearned", 0.2, None, relearned=again, quantised=rounded)])
    assert (found.relearning, found.quantisation, found.robustness) == (both, both, both)


def test_a_run_whose_figure_cannot_tell_its_own_target_is_left_out() -> None:
    other = [model("b", "target", 0.1, True), model("b", "oracle", 0.2, False, relearned=0.3)]
    unlearned = [model(run, "unlearned", 0.2, None, relearned=0.8, quantised=0.2) for run in "ab"]
    assert judge([*PAIR, *other, *unlearned]).relearning == pytest.approx(0.5)
    nothing = judge([*PAIR, *other])
    assert nothing.relearning is None and nothing.robustness is None and not nothing.failed(0.0, 1.0)


def test_thresholds() -> None:
    found = judge([*PAIR, model("a", "unlearned", 0.2, None, relearned=0.8, quantised=0.4)])
    assert not found.failed(1.0, 0.59) and found.failed(1.0, 0.61)
    hidden = judge([*PAIR, model("a", "hider", 0.0, True)])
    assert hidden.faithfulness.value == 1.0 and hidden.with_hiders.value == 0.5
    assert hidden.failed(0.8, 0.5) and not hidden.failed(0.5, 0.5)


def test_directions_come_from_calibration_and_only_common_finite_figures_count() -> None:
    assert figure_direction("m", PAIR) == 1
    assert figure_direction("m", [replace(PAIR[0], role="oracle"), replace(PAIR[1], role="target")]) == -1
    more = JudgedModel("a", "oracle", "x", False, {"n": 1.0, "m": 1.0, "x": float("nan")}, {"m": 1.0, "n": None})
    assert common_figures([more, PAIR[0]]) == ["m"]
