"""A greedy response compared with the row's: MUSE's memorisation, RWKU's probes, TriviaQA, BBH, fluency."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from erulab.data.measures import Generated, Overlap
from erulab.data.rows import Row
from erulab.evaluation import texts
from erulab.evaluation.protocols.base import Asking, Question, Replies

# Overlap -> (right answers, response) -> figure.
FIGURES: dict[Overlap, Callable[[Sequence[str], str], float]] = {
    Overlap.rouge_recall: lambda right, response: texts.rouge_recall(right[0], response),
    Overlap.rouge_f1: lambda right, response: texts.rouge_f1(right[0], response),
    Overlap.rwku_recall: lambda right, response: texts.summary_rouge_recall(right[0], response),
    Overlap.f1: lambda right, response: texts.answer_f1(response, right),
    Overlap.final_answer: lambda right, response: float(texts.final_answer(response) == right[0]),
    Overlap.final_answer_character: lambda right, response: texts.answer_exact_match(
        texts.final_answer(response), right[0]
    ),
    Overlap.entropy: lambda right, response: texts.fluency([response]),
}


def generated(measure: Generated, row: Row, asking: Asking) -> Question:
    """Figure: the overlap's name; none where `evaluation.generate` is false."""
    if not asking.options.generate:
        return Question((), None, lambda replies: {})
    cut = measure.reference_tokens
    reference = row.response if cut is None else asking.chat.cut(row.response, cut)
    compare = FIGURES[measure.overlap]

    def figures(replies: Replies) -> dict[str, float]:
        assert replies.response is not None
        return {measure.overlap.value: compare((reference, *row.accepted), replies.response)}

    return Question((), asking.prompt(row, measure.max_new_tokens, measure.stops), figures)
