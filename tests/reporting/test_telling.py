"""Which figures a closing table shows, of data sets and benchmarks whose suites it has never heard of."""

from __future__ import annotations

from erulab.reporting.telling import rows_of, telling

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
        "residual": 0.5,
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


def test_the_chosen_few_of_the_data_set_and_all_of_the_benchmarks_beside_it() -> None:
    chosen = ["forget/choice", "retain/choice", "model_utility"]
    assert telling(SCORES, chosen, ["mmlu", "tofu"]) == ["forget/choice", "model_utility", *BESIDE]


def test_all_that_tell_something_where_that_is_asked_or_none_was_chosen() -> None:
    assert sorted(telling(SCORES, ["forget/choice"], ["mmlu", "tofu"], every=True)) == sorted([*OWN, *BESIDE])
    assert sorted(telling(SCORES, ["retain/choice"])) == sorted([*OWN, *BESIDE])


def test_rows_are_those_of_the_figures_own_suite() -> None:
    figures = SCORES["unlearned"]
    assert [rows_of(figures, name) for name in ("forget/choice", "tofu/forget/choice", "mmlu/accuracy")] == [3, 4, 9]
    assert rows_of(figures, "model_utility") is rows_of(figures, "leak/privleak") is None
