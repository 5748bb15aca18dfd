"""The verdict's thresholds and sentences."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from erulab.attacks.judging.columns import row_without_figures
from erulab.reporting import Outcome, judge
from tests.reporting.conftest import ATTACKS, SCORES, attack_row

EXACT = ("retain_unrehearsed/exact_match",)


def scores(**unlearned: Any) -> dict[str, dict[str, Any]]:
    changed = copy.deepcopy(SCORES)
    changed["unlearned"].update(unlearned)
    return changed


def knowledge_left(value: float, low: float, high: float, low90: float, high90: float) -> dict[str, dict[str, Any]]:
    ends = {"low": low, "high": high, "low90": low90, "high90": high90}
    return scores(knowledge_left=value, **{f"knowledge_left_{end}": found for end, found in ends.items()})


def test_the_margin_of_the_run_decides() -> None:
    narrow = knowledge_left(0.15, 0.11, 0.19, 0.12, 0.18)
    assert judge(narrow, []).forgetting.outcome is Outcome.remains
    assert judge(narrow, [], margin=0.2).forgetting.outcome is Outcome.forgotten
    assert judge(narrow, [], margin=0.16).forgetting.outcome is Outcome.undecided


def test_words() -> None:
    assert judge(SCORES, ATTACKS[:6]).sentences == (
        "forgotten: knowledge left 0.02, 90 % interval [-0.02, 0.06] within ±0.10",
        "utility kept: 97 %, 95 % interval [93 %, 100 %]",
        "not robust: after the strongest attack (relearn, samples=100; the largest of 2) knowledge left is 0.12, 95 % "
        "interval [0.05, 0.20]",
        "after relearning: not robust, knowledge left 0.12, 95 % interval [0.05, 0.20]",
    )
    assert judge(knowledge_left(0.5, 0.4, 0.62, 0.42, 0.6), []).sentences[0] == (
        "knowledge remains (knowledge left 0.50, 95 % interval [0.40, 0.62], margin 0.10)"
    )
    assert judge(knowledge_left(-0.3, -0.4, -0.2, -0.38, -0.22), []).sentences[0] == (
        "over-forgotten: the model knows less than the oracle (knowledge left -0.30, 95 % interval [-0.40, -0.20], "
        "margin 0.10)"
    )
    # Half of the width of the 90 % interval is 0.13, and 0.02 is left to the margin: (0.13 / 0.02)^2 x 100 facts.
    assert judge(knowledge_left(0.08, -0.07, 0.23, -0.05, 0.21), []).sentences[0] == (
        "undecided: knowledge left 0.08, 90 % interval [-0.05, 0.21], which reaches beyond ±0.10; about 4,300 facts "
        "would decide (now 100)"
    )
    assert (
        judge(knowledge_left(0.0999, -0.07, 0.23, -0.05, 0.21), [])
        .sentences[0]
        .endswith("; it lies so close to the margin that more facts would hardly decide")
    )


def test_a_wide_interval_is_undecided_and_never_forgotten() -> None:
    """The run that the earlier rule called forgotten: four rows, and a target that answers none of them."""
    wide = knowledge_left(-1.59, -3.4, 0.24, -3.1, -0.05)
    assert judge(wide, []).label == "undecided"
    wide["unlearned"]["knowledge_left_note"] = "4 facts are too few to judge, at least 10 are needed"
    judged = judge(wide, [])
    assert judged.label == "not measurable" and not judged.good
    assert judged.sentences[0] == "not measurable: 4 facts are too few to judge, at least 10 are needed"


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        ((0.97, 0.94, 1.0, 0.95, 0.99), "utility kept: 97 %, 95 % interval [94 %, 100 %]"),
        ((1.27, 1.05, 1.5, 1.1, 1.4), "utility kept: 100 %, 95 % interval [100 %, 100 %]"),
        (
            (0.71, 0.65, 0.78, 0.66, 0.77),
            "utility lost: 71 %, 95 % interval [65 %, 78 %] of the target's is kept, less than 90 %",
        ),
        (
            (0.91, 0.84, 0.97, 0.85, 0.96),
            "utility undecided: 91 %, 95 % interval [84 %, 97 %] of the target's is kept, at least 90 % should be",
        ),
    ],
)
def test_utility_is_judged_by_its_interval(ends: tuple[float, ...], sentence: str) -> None:
    names = ("utility_kept", *(f"utility_kept_{end}" for end in ("low", "high", "low90", "high90")))
    figures = scores(**{"retain_unrehearsed/exact_match": ends[0]}, **dict(zip(names, ends, strict=True)))
    assert judge(figures, []).utility.words == sentence


KEPT = {"kept/step": 40, "kept/steps": 60, "kept/facts": 20, "kept/knowledge_left": -0.012, "kept/utility": 0.96}


def test_the_kept_step_and_the_half_that_is_reported_are_named() -> None:
    figures = scores(**KEPT, **{"kept/least_utility": 0.9}, knowledge_left_facts=21)
    judged = judge(figures, [])
    assert judged.sentences[0] == (
        "forgotten: knowledge left 0.02, 90 % interval [-0.02, 0.06] within ±0.10, on the reported half of the "
        "facts, 21"
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
        "not robust: after the strongest attack (quantize, bits=4; the largest of 2) knowledge left is 0.70, 95 % "
        "interval [0.63, 0.78], less than without an attack (0.80)",
        "after quantisation: not robust, knowledge left 0.70, 95 % interval [0.63, 0.78]",
        "after relearning: not robust, knowledge left 0.60, 95 % interval [0.53, 0.68]",
        "not scored: forgetting and utility are not judged; on the attacks' rows knowledge left without an attack is "
        "0.80",
    )
    assert judged.forgetting.outcome is Outcome.unmeasurable and judged.utility.ratio is None
    assert judge({}, [row_without_figures("gcg", {}, "not run: x")]).sentences[-1].endswith("are not judged")


def test_no_oracle_no_verdict() -> None:
    known = {model: figures for model, figures in SCORES.items() if model != "oracle"}
    known["unlearned"] = {k: v for k, v in known["unlearned"].items() if not k.startswith("knowledge_left")}
    judged = judge(known, [])
    assert judged.forgetting.outcome is Outcome.unmeasurable
    assert judged.sentences[0] == "not measurable: no scores of the oracle"
    assert judge({}, []).sentences[0] == "not measurable: no scores of the target, unlearned, oracle"


@pytest.mark.parametrize("model", ["target", "unlearned"])
def test_a_model_by_itself_is_not_judged(model: str) -> None:
    judged = judge({model: {"forget/probability": 0.3}}, [])
    assert judged.label == "not judged" and not judged.collapsed
    assert "is not judged" in judged.words and "(model.oracle=FOLDER)" in judged.words
    assert "unknown" not in judged.words


def test_undefined_knowledge_left_gives_its_reason() -> None:
    judged = judge(scores(knowledge_left=None, knowledge_left_note="the target does not know the forget set"), [])
    assert judged.words.startswith("not measurable: the target does not know the forget set")
    assert judge(scores(knowledge_left=float("nan")), []).forgetting.outcome is Outcome.unmeasurable


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
    """FAULTS 17."""
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
