"""TOFU's protocol: the response's probability against wrong answers and wrong values, and the generated answer."""

from __future__ import annotations

import math

import numpy as np

from erulab.data.measures import Answers
from erulab.data.rows import Row
from erulab.data.words import has_words
from erulab.evaluation import memorisation, metrics, texts
from erulab.evaluation.figures.fluency import fluency_figures
from erulab.evaluation.figures.rank import rank_figures
from erulab.evaluation.measures import RequestBuilder, RowRequests, RowResults, measures
from erulab.evaluation.scoring import Score
from erulab.tokens.batch import Encoded


@measures.register(Answers)
def request_answers(measure: Answers, row: Row, builder: RequestBuilder) -> RowRequests:
    """Requests the response, right and wrong answers and values, and a generated response.

    Figures: nll, probability, extraction_strength, exact_memorization; log_truth_ratio, log_truth_ratio_arithmetic,
    log_odds, choice, rank and rank_auc if the row has wrong answers or values; value_nll and template_nll if it has
    candidate values; paraphrase_probability if it has a paraphrase; rouge (if the answer has words), exact_match and
    those of `fluency_figures` if responses are generated.
    """
    response = builder.encode(row, row.response)
    wrong_texts = () if builder.for_attacks_only and row.candidates else wrong_answers(row)
    wrong = [builder.encode(row, text) for text in wrong_texts]
    right = builder.encode(row, right_answer(measure, row)) if wrong else response
    value, candidates = _value_requests(row, builder)
    # The end-of-turn tokens are not part of what is memorised.
    closing = 0 if row.plain else builder.chat.closing(response)
    options = builder.options
    # Running text without a prompt asks nothing, so no response is generated.
    prompt = builder.prompt(row, options.max_new_tokens) if options.generate and row.prompt else None
    right_answers = (row.response, *row.accepted)
    worded = [answer for answer in right_answers if has_words(answer)]

    def figures(results: RowResults) -> dict[str, float]:
        own = results.of(response)
        greedy = np.array([token.greedy for token in own.tokens])[: len(own.tokens) - closing]
        result = {
            "nll": own.mean_nll,
            "probability": math.exp(-own.mean_nll),
            "extraction_strength": memorisation.extraction_strength(greedy),
            "exact_memorization": memorisation.exact_memorisation(greedy),
        }
        if wrong:
            known, others = results.of(right).mean_nll, [results.of(encoded).mean_nll for encoded in wrong]
            result |= _log_odds_and_choice(known, others)
            result["log_truth_ratio"] = metrics.log_truth_ratio(known, others)
            result["log_truth_ratio_arithmetic"] = metrics.log_truth_ratio_arithmetic(known, others)
            if right != response:  # the paraphrase
                result["paraphrase_probability"] = math.exp(-known)
            if row.options:
                result["probability"] = metrics.probability_among(own.mean_nll, others)
        if value is not None:
            # Summed over the value's tokens: the candidates compete as whole values, not per token.
            result |= _log_odds_and_choice(results.of(value).nll, [results.of(encoded).nll for encoded in candidates])
            result |= _value_and_template(own, response, value, closing)
        if results.response is not None:
            # A right answer of emoji or formula signs has no words to be found again: no figure, rather than 0.
            if worded:
                result["rouge"] = max(texts.rouge_recall(answer, results.response) for answer in worded)
            result["exact_match"] = float(results.response.strip() in [answer.strip() for answer in right_answers])
            result |= fluency_figures(results.response)
        return result

    requests = (response, right, *wrong, *([] if value is None else [value]), *candidates)
    return RowRequests(requests, prompt, figures)


def wrong_answers(row: Row) -> tuple[str, ...]:
    """Returns the wrong answers of the truth ratio."""
    return row.perturbed or row.options


def right_answer(measure: Answers, row: Row) -> str:
    """Returns the right answer of the truth ratio: the paraphrase, unless the row has none or the measure says so."""
    return row.response if measure.right == "answer" or row.paraphrase is None else row.paraphrase


def _value_requests(row: Row, builder: RequestBuilder) -> tuple[Encoded | None, list[Encoded]]:
    """Returns the response with its own value and with each wrong value; only the value's tokens are supervised."""
    if not row.candidates:
        return None, []
    start = len(row.prefix)
    rest = row.response[start + len(row.value) :]

    def with_value(value: str) -> Encoded:
        return builder.encode(row, row.prefix + value + rest, (start, start + len(value)))

    return with_value(row.value), [with_value(candidate) for candidate in row.candidates]


def _log_odds_and_choice(right: float, wrong: list[float]) -> dict[str, float]:
    return {
        "log_odds": metrics.log_odds(right, wrong),
        "choice": float(right < min(wrong)),
        **rank_figures(right, wrong),
    }


def _value_and_template(own: Score, response: Encoded, value: Encoded, closing: int) -> dict[str, float]:
    """Returns the NLL per token of the response's value, and of its other tokens without the end of turn, if any."""
    nll = [token.nll for token in own.tokens]
    first, last = value.positions[0] - response.positions[0], value.positions[-1] + 1 - response.positions[0]
    template = nll[:first] + nll[last : len(nll) - closing]
    parts = {"value_nll": nll[first:last], "template_nll": template}
    return {name: metrics.exact_mean(part) for name, part in parts.items() if part}
