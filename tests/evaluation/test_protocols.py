"""RWKU's figures of given responses, by hand and by the package that RWKU scores with."""

from __future__ import annotations

import pytest
from rouge import Rouge

from erulab.data.measures import Generated, Overlap
from erulab.data.rows import Row
from erulab.evaluation.measures import RequestBuilder, RowResults
from erulab.evaluation.protocols.generated import request_generated
from erulab.options import EvaluationOptions
from erulab.tokens.chat import ChatFormat
from tests.models.conftest import byte_level


def figure(overlap: Overlap, right: str, response: str, *accepted: str) -> float:
    builder = RequestBuilder(ChatFormat(byte_level(), 512), EvaluationOptions())
    question = request_generated(
        Generated(overlap, 30), Row("r", "Where?", right, accepted=accepted, answer_prefix="Answer:"), builder
    )
    return question.figures(RowResults({}, response))[overlap.value]


@pytest.mark.parametrize(
    "response", [" Richard Bachman", "He wrote as Richard Bachman, I believe.", "Richard", "bachman", " ", "NOANSWER"]
)
def test_probes_are_scored_by_the_package_rouge(response: str) -> None:
    wanted = Rouge().get_scores(response.strip() or "NOANSWER", "Richard Bachman")[0]["rouge-l"]["r"]
    assert figure(Overlap.rwku_recall, "Richard Bachman", response) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("right", "response", "whole", "characters"),
    [
        ("(B)", "First, ... So the answer is (B).", 1.0, 1.0),
        ("(B)", "So the answer is b.", 0.0, 1.0),
        ("(A)", "So the answer is (A).", 1.0, 1.0),  # an article, which is nothing, as the brackets are
        ("No", "So the answer is No.", 1.0, 0.0),  # no character of it is "no"
        ("-9", "So the answer is -9.", 1.0, 1.0),
        ("42", "So the answer is 42.", 1.0, 0.0),
        ("(B)", "So the answer is (C).", 0.0, 0.0),
    ],
)
def test_chains_of_thought_by_the_whole_answer_and_by_its_characters(
    right: str, response: str, whole: float, characters: float
) -> None:
    assert figure(Overlap.final_answer, right, response) == whole
    assert figure(Overlap.final_answer_character, right, response) == characters


def test_the_best_of_the_accepted_answers_counts() -> None:
    assert figure(Overlap.f1, "Bergen", " The Bjorgvin\nQ: Which", "Bjorgvin") == pytest.approx(2 / 4)


def test_an_answer_without_words_has_no_figure_that_counts_words() -> None:
    """FAULTS 38: emoji and formula signs are no words; their figure is left out, not 0."""
    builder = RequestBuilder(ChatFormat(byte_level(), 512), EvaluationOptions())
    for overlap in (Overlap.rouge_recall, Overlap.rouge_f1, Overlap.f1):
        requests = request_generated(Generated(overlap, 30), Row("r", "a question", "🙂 ∑"), builder)
        assert set(requests.figures(RowResults({}, "🙂 ∑"))) == {"distinct_ngrams", "longest_repetition", "entropy"}
