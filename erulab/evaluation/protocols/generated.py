"""A greedy response compared with the row's response: MUSE's memorisation, RWKU's probes, TriviaQA, BBH, fluency."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from erulab.data.measures import Generated, Overlap
from erulab.data.rows import Row
from erulab.data.words import has_words
from erulab.evaluation import texts
from erulab.evaluation.figures.fluency import fluency_figures
from erulab.evaluation.measures import RequestBuilder, RowRequests, RowResults, measures

# Overlap -> (right answers, response) -> figure.
OVERLAP_FUNCTIONS: dict[Overlap, Callable[[Sequence[str], str], float]] = {
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


@measures.register(Generated)
def request_generated(measure: Generated, row: Row, builder: RequestBuilder) -> RowRequests:
    """Requests a generated response: the figure with the overlap's name, and the response's fluency. None if
    `evaluation.generate` is false; without the overlap if it counts words and the right answer has none.
    """
    if not builder.options.generate:
        return RowRequests((), None, lambda results: {})
    cut = measure.reference_tokens
    reference = row.response if cut is None else builder.chat.cut(row.response, cut)
    compare, right = OVERLAP_FUNCTIONS[measure.overlap], (reference, *row.accepted)
    # Words cannot be counted if the right answer has none, as one of emoji or formula signs: no figure, rather than 0.
    counted = {Overlap.rouge_recall: right[:1], Overlap.rouge_f1: right[:1], Overlap.f1: right}.get(measure.overlap)
    worded = counted is None or any(map(has_words, counted))

    def figures(results: RowResults) -> dict[str, float]:
        assert results.response is not None
        found = {measure.overlap.value: compare(right, results.response)} if worded else {}
        return {**found, **fluency_figures(results.response)}

    return RowRequests((), builder.prompt(row, measure.max_new_tokens, measure.stops), figures)
