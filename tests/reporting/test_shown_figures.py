"""The figures that a closing table shows for data sets and benchmarks with unknown suites."""

from __future__ import annotations

from erulab.reporting.shown_figures import figures_worth_showing, row_count

SCORES = {
    "unlearned": {
        "forget/n": 3,
        "forget/nll": 1.0,
        "forget/probability": 0.4,
        "forget/log_odds": 1.0,
        "forget/choice": 1.0,
        "passages/n": 5,
        "passages/nll": 2.0,
        "passages/min_k": 3.0,
        "knowledge": 1.0,
        "knowledge_left": 0.5,
        "cost/flops": 1e9,
        "leak/auc_zlib": 0.4,
        "leak/auc_min_k": 0.5,
        "leak/privleak": -3.0,
        "model_utility": 0.6,
        "mmlu/n": 9,
        "mmlu/accuracy": 0.25,
        "mmlu/log_odds": 0.1,
        "tofu/forget/n": 4,
        "tofu/forget/choice": 0.3,
    },
    "oracle": {"forget/n": 3, "forget/choice": 0.0, "forget_quality": 1.0},
}
OWN = [
    "forget/probability",
    "forget/choice",
    "passages/nll",
    "leak/auc_min_k",
    "leak/privleak",
    "model_utility",
    "forget_quality",
]
BESIDE = ["mmlu/accuracy", "tofu/forget/choice"]


def test_shows_the_chosen_figures_of_the_data_set_and_all_of_extra_benchmarks() -> None:
    chosen = ["forget/choice", "retain/choice", "model_utility"]
    assert figures_worth_showing(SCORES, chosen, ["mmlu", "tofu"]) == ["forget/choice", "model_utility", *BESIDE]


def test_shows_all_figures_if_asked_to_or_if_none_was_chosen() -> None:
    assert sorted(figures_worth_showing(SCORES, ["forget/choice"], ["mmlu", "tofu"], every=True)) == sorted(
        [*OWN, *BESIDE]
    )
    assert sorted(figures_worth_showing(SCORES, ["retain/choice"])) == sorted([*OWN, *BESIDE])


def test_row_count_is_that_of_the_figures_own_suite() -> None:
    figures = SCORES["unlearned"]
    assert [row_count(figures, name) for name in ("forget/choice", "tofu/forget/choice", "mmlu/accuracy")] == [3, 4, 9]
    assert row_count(figures, "model_utility") is row_count(figures, "leak/privleak") is None
