"""Figures of suites and of several suites, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from erulab.data.measures import Pooled, Separation
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.evaluation.aggregate import against_oracle, aggregate, forget_quality
from erulab.evaluation.row_score import RowScore


def scored(suite: str, role: Role, number: int, **figures: float) -> RowScore:
    return RowScore(f"{suite}/{number}", suite, role.value, f"fact/{number}", "", figures)


def test_means_by_suite_and_model_utility() -> None:
    row = Row("r", "p", "r")
    suites = (
        Suite("forget", Role.FORGET, (row,)),
        Suite("heldout", Role.HELDOUT, (row,)),
        Suite("retain", Role.RETAIN, (row,), in_utility=True),
        Suite("facts", Role.RETAIN, (row,), in_utility=True),
        Suite("unseen", Role.UNSEEN, (row,)),
        Suite("empty", Role.RETAIN, ()),
    )
    benchmark = Benchmark("mine", suites)
    rows = [
        scored("forget", Role.FORGET, 0, probability=0.2, log_odds=-1.0, choice=0.0, log_truth_ratio=math.log(2)),
        scored("forget", Role.FORGET, 1, probability=0.4, log_odds=3.0, choice=1.0, log_truth_ratio=-math.log(4)),
        scored("heldout", Role.HELDOUT, 0, probability=0.6, log_odds=7.0, choice=1.0),
        scored("retain", Role.RETAIN, 2, probability=0.9, rouge=0.5, log_odds=99.0, log_truth_ratio=-math.log(4)),
        scored("facts", Role.RETAIN, 3, probability=0.8, rouge=1.0, log_truth_ratio=-math.log(2)),
        scored("unseen", Role.UNSEEN, 4, probability=0.1, rouge=0.0),
    ]
    result = aggregate(rows, benchmark)
    assert result["forget/n"] == 2 and result["forget/probability"] == pytest.approx(0.3)
    assert result["forget/choice"] == 0.5 and result["forget/truth_ratio"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert result["retain/truth_ratio"] == pytest.approx(3 / 4)
    assert result["knowledge"] == pytest.approx(3.0)  # forget and held-out rows only
    components = (0.9, 0.5, 0.75, 0.8, 1.0, 0.5)
    assert result["model_utility"] == pytest.approx(6 / sum(1 / c for c in components))
    assert not any(name.startswith("empty") for name in result) and "unseen/log_odds" not in result
    # A component that is zero makes the utility zero; one that was not measured leaves it out.
    assert (
        aggregate([*rows[:3], replace(rows[3], figures=rows[3].figures | {"rouge": 0.0}), *rows[4:]], benchmark)[
            "model_utility"
        ]
        == 0.0
    )
    assert "model_utility" not in aggregate(rows[:4], benchmark)


def test_forget_quality_compares_the_rows_that_the_request_names() -> None:
    def rows(shift: float) -> list[RowScore]:
        named = [scored("forget", Role.FORGET, i, log_truth_ratio=shift + i / 40) for i in range(40)]
        return [*named, scored("heldout", Role.HELDOUT, 0, log_truth_ratio=99.0 * shift)]

    assert forget_quality(rows(0.0), rows(0.0)) == 1.0
    assert forget_quality(rows(9.0), rows(0.0)) == pytest.approx(1.9e-23, rel=0.05)
    assert forget_quality([scored("forget", Role.FORGET, 0, nll=1.0)], rows(0.0)) is None


def test_a_figure_says_how_many_rows_it_is_of_where_not_all_have_it() -> None:
    benchmark = Benchmark("mine", (Suite("retain", Role.RETAIN, ()),))
    rows = [scored("retain", Role.RETAIN, 0, nll=1.0, choice=1.0), scored("retain", Role.RETAIN, 1, nll=3.0)]
    assert aggregate(rows, benchmark) == {
        "retain/n": 2,
        "retain/nll": 2.0,
        "retain/choice": 1.0,
        "retain/choice/n": 1,
    }


def test_pooled_figures_weigh_rows_not_suites() -> None:
    suites = (Suite("bio", Role.FORGET, ()), Suite("chem", Role.FORGET, ()), Suite("other", Role.RETAIN, ()))
    benchmark = Benchmark("wmdp", suites, (Pooled("wmdp", "accuracy", ("bio", "chem")),))
    rows = [scored("bio", Role.FORGET, i, accuracy=float(i < 2)) for i in range(4)]
    rows += [scored("chem", Role.FORGET, 0, accuracy=1.0), scored("other", Role.RETAIN, 0, accuracy=0.0)]
    result = aggregate(rows, benchmark)
    assert result["wmdp/accuracy"] == pytest.approx(3 / 5) and result["wmdp/n"] == 5
    # Without the rows of one of its suites it would be another figure.
    assert "wmdp/accuracy" not in aggregate(rows[-1:], benchmark) | aggregate(rows[:4], benchmark)


def test_membership_figures_tell_forget_from_holdout() -> None:
    """A target that knows its forget texts has AUC 0 and PrivLeak -100; a model that cannot tell has 0.5 and 0."""
    benchmark = Benchmark("muse", (), (Separation("mia", "members", "others"),))

    def rows(members: list[float]) -> list[RowScore]:
        known = [scored("members", Role.FORGET, i, min_k=value) for i, value in enumerate(members)]
        return known + [scored("others", Role.UNSEEN, i, min_k=2.0 + i) for i in range(3)]

    target, blind, over = rows([0.1, 0.2, 0.3]), rows([2.0, 3.0, 4.0]), rows([8.0, 9.0, 7.0])
    assert [aggregate(part, benchmark)["mia/auc_min_k"] for part in (target, blind, over)] == [0.0, 0.5, 1.0]
    leaks = [against_oracle(part, blind, benchmark)["mia/privleak"] for part in (target, blind, over)]
    assert leaks == pytest.approx([-100.0, 0.0, 100.0])
    # A published AUC of a retrained model wins, since it was asked for; without it or an oracle there is no figure.
    published = replace(benchmark, summaries=(Separation("mia", "members", "others", retrained=0.4),))
    for oracle in (None, over):
        assert against_oracle(blind, oracle, published)["mia/privleak"] == pytest.approx(25.0)
    assert against_oracle(blind, None, benchmark) == {}


def test_rwku_s_figure_of_all_probes_weighs_questions() -> None:
    """The paper's row "before": 85.9 on 16.3 FB, 76.4 on 14.4 QA, 77.7 on 34.9 AA probes: 79.6; their mean is 80."""
    suites = {"forget_fb": (163, 0.859), "forget_qa": (144, 0.764), "forget_aa_role_play": (349, 0.777)}
    benchmark = Benchmark(
        "rwku",
        tuple(Suite(name, Role.FORGET, ()) for name in suites),
        (Pooled("forget_all", "rwku_recall", tuple(suites)),),
    )
    rows = [scored(name, Role.FORGET, i, rwku_recall=mean) for name, (n, mean) in suites.items() for i in range(n)]
    result = aggregate(rows, benchmark)
    assert result["forget_all/rwku_recall"] == pytest.approx(0.796, abs=2e-3) and result["forget_all/n"] == 656
