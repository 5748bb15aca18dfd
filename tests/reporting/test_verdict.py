"""The verdict's thresholds and sentences."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from erulab.attacks.judging.rows import row_without_figures
from erulab.reporting import Outcome, judge
from tests.reporting.conftest import ATTACKS, SCORES, attack_row

EXACT = ("retain_unrehearsed/exact_match",)


def scores(**unlearned: Any) -> dict[str, dict[str, Any]]:
    changed = copy.deepcopy(SCORES)
    changed["unlearned"].update(unlearned)
    return changed


def knowledge_left(value: float | None, low: float | None, high: float | None) -> dict[str, dict[str, Any]]:
    return scores(knowledge_left=value, knowledge_left_low=low, knowledge_left_high=high)


@pytest.mark.parametrize(
    ("value", "low", "high", "outcome"),
    [
        (0.05, 0.04, 0.06, Outcome.within),  # |K| <= 0.05 whatever the interval
        (-0.05, -0.06, -0.04, Outcome.within),
        (0.0501, 0.04, 0.06, Outcome.remains),
        (-0.0501, -0.06, -0.04, Outcome.over),
        (0.10, 0.0, 0.2, Outcome.within),  # |K| <= half-width 0.10
        (0.10, 0.01, 0.2, Outcome.remains),  # half-width 0.095
        (-0.10, -0.19, 0.0, Outcome.over),
        (0.04, None, None, Outcome.within),
        (0.06, None, None, Outcome.remains),
        (1.0, 1.0, 1.0, Outcome.remains),
    ],
)
def test_within_the_oracles_range(value: float, low: float | None, high: float | None, outcome: Outcome) -> None:
    assert judge(knowledge_left(value, low, high), []).forgetting.outcome is outcome


def test_words() -> None:
    assert judge(SCORES, ATTACKS[:6]).words == (
        "forgotten: yes, within the oracle's range (knowledge left 0.02, 95 % interval [-0.03, 0.07]); "
        "utility kept: 97 %; "
        "the strongest attack (relearn, samples=100) brings back 0.12 [0.05, 0.20] of what retraining would not know; "
        "after relearning 0.12 [0.05, 0.20] of the knowledge above the oracle is back"
    )
    assert judge(knowledge_left(0.5, 0.4, 0.62), []).sentences[0] == (
        "forgotten: no (knowledge left 0.50, 95 % interval [0.40, 0.62])"
    )
    assert judge(knowledge_left(-0.3, -0.4, -0.2), []).sentences[0] == (
        "over-forgotten: the model knows less than the oracle (knowledge left -0.30, 95 % interval [-0.40, -0.20])"
    )


KEPT = {"kept/step": 40, "kept/steps": 60, "kept/facts": 20, "kept/knowledge_left": -0.012, "kept/utility": 0.96}


def test_the_kept_step_and_the_half_that_is_reported_are_named() -> None:
    figures = scores(**KEPT, **{"kept/least_utility": 0.9}, knowledge_left_facts=21)
    judged = judge(figures, [])
    assert judged.sentences[0] == (
        "forgotten: yes, within the oracle's range (knowledge left 0.02, 95 % interval [-0.03, 0.07], on the reported "
        "half of the facts, 21)"
    )
    assert judged.sentences[-1] == (
        "kept step 40 of 60, the best on 20 facts that are not reported: knowledge left -0.01, utility kept 96 %"
    )
    below = judge(scores(**KEPT, **{"kept/least_utility": 0.97}, knowledge_left_facts=21), [])
    assert below.sentences[-1] == (
        "kept step 40 of 60: no evaluated step keeps 97 % of the utility, and this one keeps the most, 96 % "
        "(on 20 facts that are not reported: knowledge left -0.01)"
    )


def test_attacks_without_scores_claim_nothing_of_forgetting() -> None:
    rows = [
        attack_row("quantize", {"bits": 4}, 0.7) | {"knowledge_left": 0.7},
        attack_row("relearn", {}, 0.6) | {"knowledge_left": 0.8, "n": 200},
    ]
    judged = judge({}, rows)
    assert judged.sentences == (
        "the strongest attack (quantize, bits=4) brings back 0.70 [0.63, 0.78] of what retraining would not know, less "
        "than is there without an attack (0.80)",
        "after quantisation 0.70 [0.63, 0.78] of the knowledge above the oracle is there",
        "after relearning 0.60 [0.53, 0.68] of the knowledge above the oracle is back",
        "not scored: forgetting and utility are not judged; on the attacks' rows knowledge left without an attack is "
        "0.80",
    )
    assert judged.forgetting.outcome is Outcome.unknown and judged.utility.ratio is None
    assert judge({}, [row_without_figures("gcg", {}, "not run: x")]).sentences[-1].endswith("are not judged")


def test_no_oracle_no_verdict() -> None:
    known = {model: figures for model, figures in SCORES.items() if model != "oracle"}
    known["unlearned"] = {k: v for k, v in known["unlearned"].items() if not k.startswith("knowledge_left")}
    judged = judge(known, [])
    assert judged.forgetting.outcome is Outcome.unknown
    assert judged.sentences[0] == "forgotten: unknown, no scores of the oracle"
    assert judge({}, []).sentences[0] == "forgotten: unknown, no scores of the target, unlearned, oracle"


@pytest.mark.parametrize("model", ["target", "unlearned"])
def test_a_model_by_itself_is_not_judged(model: str) -> None:
    judged = judge({model: {"forget/probability": 0.3}}, [])
    assert judged.label == "not judged" and not judged.collapsed
    assert "is not judged" in judged.words and "(model.oracle=FOLDER)" in judged.words
    assert "unknown" not in judged.words


def test_undefined_knowledge_left_gives_its_reason() -> None:
    judged = judge(scores(knowledge_left=None, knowledge_left_note="the target does not know the forget set"), [])
    assert judged.words.startswith("forgotten: unknown, the target does not know the forget set")
    assert judge(scores(knowledge_left=float("nan")), []).forgetting.outcome is Outcome.unknown


@pytest.mark.parametrize(
    ("removed", "figure", "n", "ratio"),
    [
        ((), "retain_unrehearsed/exact_match", 100, 0.97),
        (EXACT, "retain_unrehearsed/choice", 100, 0.97),  # rehearsed rows would flatter where nothing is generated
        ((*EXACT, "retain_unrehearsed/choice"), "model_utility", None, 0.885 / 0.912),
        ((*EXACT, "retain_unrehearsed/choice", "model_utility"), "retain/probability", 125, 0.98),
    ],
)
def test_utility_is_the_most_honest_figure_there_is(
    removed: tuple[str, ...], figure: str, n: int | None, ratio: float
) -> None:
    known = {model: {k: v for k, v in figures.items() if k not in removed} for model, figures in SCORES.items()}
    utility = judge(known, []).utility
    assert (utility.figure, utility.n) == (figure, n)
    assert utility.ratio == pytest.approx(ratio)


@pytest.mark.parametrize(("exact", "collapsed"), [(0.49, True), (0.5, False), (0.0, True)])
def test_collapse(exact: float, collapsed: bool) -> None:
    judged = judge(scores(**{"retain_unrehearsed/exact_match": exact}), [])
    assert judged.collapsed is collapsed
    assert judged.words.startswith("COLLAPSED") is collapsed
    assert judged.label.startswith("COLLAPSED") is collapsed


def test_a_target_without_utility_is_no_ratio() -> None:
    known = copy.deepcopy(SCORES)
    known["target"]["retain_unrehearsed/exact_match"] = 0.0
    judged = judge(known, [])
    assert judged.utility.ratio is None and not judged.collapsed
    assert "the target's retain_unrehearsed/exact_match is 0" in judged.words
