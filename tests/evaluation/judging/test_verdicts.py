"""Figures of verdicts on a handful of responses, by hand."""

from __future__ import annotations

import pytest

from erulab.data.measures import Answers, Generated, Overlap, Texts
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.evaluation.aggregate import aggregate
from erulab.evaluation.judging.answers import Answer
from erulab.evaluation.judging.prompt import judge_prompt
from erulab.evaluation.judging.verdicts import (
    Verdict,
    control_figures,
    control_prompts,
    judge_prompts,
    judged_figures,
    judged_rows,
    with_judged,
    worst_interval,
    worst_of_phrasings,
)
from erulab.evaluation.row_score import RowScore
from erulab.options import EvaluationOptions


def verdict(suite: str, role: Role, row: str, fact: str, answer: str | None) -> Verdict:
    scored = RowScore(row, suite, role.value, fact, "", {"rouge": 0.5}, "" if answer is None else "a response")
    return Verdict(scored, "prompt", None if answer is None else Answer("prompt", answer))


VERDICTS = [
    verdict("forget", Role.FORGET, "a", "born", "no"),
    verdict("forget", Role.FORGET, "b", "wrote", "No."),
    verdict("forget", Role.FORGET, "c", "lives", "maybe"),
    verdict("forget", Role.FORGET, "d", "plays", "hm"),
    verdict("heldout", Role.HELDOUT, "e", "born", "Yes"),  # hidden from the request's own phrasing only
    verdict("heldout", Role.HELDOUT, "f", "wrote", None),
    verdict("heldout", Role.HELDOUT, "g", "lives", "yes"),
    verdict("heldout", Role.HELDOUT, "h", "plays", "no"),
    verdict("retain", Role.RETAIN, "i", "kept", "yes"),
    verdict("retain", Role.RETAIN, "j", "also kept", "no"),
]


def test_the_worst_of_the_phrasings_counts() -> None:
    """`born` and `lives` are held by one phrasing; of `plays` nobody knows; `wrote` is not held: 2 of 3."""
    assert worst_of_phrasings(VERDICTS) == {"born": True, "wrote": False, "lives": True, "plays": None}
    figures = judged_figures(VERDICTS)
    assert figures == {"judged_worst": pytest.approx(2 / 3), "judged_worst/n": 3, "judged/unjudged": 2}
    assert judged_figures(VERDICTS[-2:]) == {"judged/unjudged": 0}, "no forgotten fact"


def test_shares_of_suites_leave_unjudged_rows_out() -> None:
    rows = [one.row for one in VERDICTS]
    found = with_judged(rows, VERDICTS)
    assert rows[0].figures == {"rouge": 0.5}, "the rows that attacks read stay as they are"
    suites = tuple(
        Suite(name, role, ())
        for name, role in (("forget", Role.FORGET), ("heldout", Role.HELDOUT), ("retain", Role.RETAIN))
    )
    figures = aggregate(found, Benchmark("hand", suites))
    assert figures["forget/judged"] == 0.0 and figures["forget/judged/n"] == 2 and figures["forget/n"] == 4
    assert figures["heldout/judged"] == 0.5 and "heldout/judged/n" not in figures, "an empty response holds nothing"
    assert figures["retain/judged"] == 0.5 and figures["retain/rouge"] == 0.5


def test_questions_are_judged_and_texts_are_not() -> None:
    question = Row("q", "Who?", "Ada.")
    benchmark = Benchmark(
        "many",
        (
            Suite(
                "forget", Role.FORGET, (question, Row("t", "Once upon", " a time", plain=True), Row("l", "", "Text"))
            ),
            Suite("heldout", Role.HELDOUT, (question,), Generated(Overlap.rwku_recall, 8)),
            Suite("retain", Role.RETAIN, (question, Row("r", "Where?", "There."))),
            Suite("unseen", Role.UNSEEN, (question,), Answers()),
            Suite("fluency", Role.RETAIN, (question,), Generated(Overlap.entropy, 8)),
            Suite("members", Role.FORGET, (question,), Texts()),
        ),
    )
    asked = judged_rows(benchmark, EvaluationOptions(rows=1))
    assert list(asked) == [("forget", "q"), ("heldout", "q"), ("retain", "q")]
    assert judged_rows(benchmark, EvaluationOptions(generate=False)) == {}
    rows = [
        RowScore("q", "forget", "forget", "q", "", {}, "It was Ada."),
        RowScore("t", "forget", "forget", "t", "", {}, " time"),
        RowScore("q", "heldout", "heldout", "q", "", {}, " \n"),
    ]
    (first, prompt), (second, nothing) = judge_prompts(rows, asked)
    assert first is rows[0] and "It was Ada." in prompt
    assert second is rows[2] and nothing == "", "an empty response is sent nowhere"


def test_a_line_of_the_file_says_who_was_asked_what() -> None:
    line = VERDICTS[4].to_json("oracle")
    assert line == {
        "model": "oracle",
        "suite": "heldout",
        "id": "e",
        "fact": "born",
        "prompt": "prompt",
        "answer": "Yes",
        "log_odds": None,
        "verdict": "yes",
    }
    assert VERDICTS[2].to_json("target")["verdict"] == "unjudged"
    assert VERDICTS[5].to_json("target")["answer"] is None and VERDICTS[5].to_json("target")["verdict"] == "no"


def test_the_judge_is_tested_on_answers_that_are_known() -> None:
    tofu = Row("t", "Who?", "Ada.", paraphrase="It was Ada.", perturbed=("It was Bela.", "It was Cora."))
    world = Row("w", "Where?", "In Oslo now.", prefix="In ", value="Oslo", candidates=("Rome", "Bern"))
    right, wrong = control_prompts(
        {("a", "t"): tofu, ("b", "t"): tofu, ("a", "w"): world, ("a", "n"): Row("n", "?", ".")}
    )
    assert right == [judge_prompt(tofu, "It was Ada."), judge_prompt(world, "In Oslo now.")]
    assert wrong == [judge_prompt(tofu, "It was Bela."), judge_prompt(world, "In Rome now.")]
    said = [Answer("p", text) for text in ("yes", "no", "hm", "yes")]
    assert control_figures(said, said[1:]) == {
        "judged/accepts_right": 0.5,
        "judged/accepts_wrong": pytest.approx(1 / 3),
    }
    assert control_figures([], []) == {}


def test_the_interval_of_the_worst_case_is_one_over_facts() -> None:
    """100 facts in two phrasings each, 30 of them held by the second one: the binomial's normal interval, nearly."""
    verdicts = [
        verdict(suite, role, f"{suite}{i}", f"fact {i}", "yes" if suite == "heldout" and i < 30 else "no")
        for suite, role in (("forget", Role.FORGET), ("heldout", Role.HELDOUT))
        for i in range(100)
    ]
    low, high = worst_interval(verdicts, "unlearned") or (0.0, 0.0)
    half = 1.96 * (0.3 * 0.7 / 100) ** 0.5
    assert low == pytest.approx(0.3 - half, abs=0.02) and high == pytest.approx(0.3 + half, abs=0.02)
    # Without any fact that is held: Wilson's upper bound of 0 in 100.
    none_held = [one for one in verdicts if one.row.suite == "forget"]
    assert worst_interval(none_held, "oracle") == (0.0, pytest.approx(1.96**2 / (100 + 1.96**2), abs=1e-4))
    assert worst_interval(verdicts[:1], "oracle") is None and worst_interval([], "oracle") is None
