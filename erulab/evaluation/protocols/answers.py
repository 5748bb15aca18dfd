"""TOFU's protocol: the response's probability, against wrong answers and wrong values; and what the model answers."""

from __future__ import annotations

import math

import numpy as np

from erulab.data.measures import Answers
from erulab.data.rows import Row
from erulab.evaluation import memorisation, metrics, texts
from erulab.evaluation.protocols.base import Asking, Question, Replies
from erulab.tokens.batch import Encoded


def answers(measure: Answers, row: Row, asking: Asking) -> Question:
    """Figures: nll, probability, extraction_strength, exact_memorization; log_truth_ratio, log_truth_ratio_arithmetic,
    log_odds and choice where the row has wrong answers or values; rouge and exact_match where responses are generated.
    """
    response = asking.encode(row, row.response)
    wrong_texts = () if asking.headline and row.candidates else wrong_of(row)
    wrong = [asking.encode(row, text) for text in wrong_texts]
    right = asking.encode(row, right_of(measure, row)) if wrong else response
    value, candidates = _values(row, asking)
    # How a turn ends is no part of what is remembered.
    closing = 0 if row.plain else asking.chat.closing(response)
    options = asking.options
    # A text that is learned as it is asks nothing.
    prompt = asking.prompt(row, options.max_new_tokens) if options.generate and row.prompt else None
    right_answers = (row.response, *row.accepted)

    def figures(replies: Replies) -> dict[str, float]:
        own = replies.of(response)
        greedy = np.array([token.greedy for token in own.tokens])[: len(own.tokens) - closing]
        result = {
            "nll": own.mean_nll,
            "probability": math.exp(-own.mean_nll),
            "extraction_strength": memorisation.extraction_strength(greedy),
            "exact_memorization": memorisation.exact_memorisation(greedy),
        }
        if wrong:
            known, others = replies.of(right).mean_nll, [replies.of(encoded).mean_nll for encoded in wrong]
            result |= _odds(known, others)
            result["log_truth_ratio"] = metrics.log_truth_ratio(known, others)
            result["log_truth_ratio_arithmetic"] = metrics.log_truth_ratio_arithmetic(known, others)
            if row.options:
                result["probability"] = metrics.probability_among(own.mean_nll, others)
        if value is not None:
            # Summed over the value's tokens: candidates are whole values, not rates.
            result |= _odds(replies.of(value).nll, [replies.of(encoded).nll for encoded in candidates])
        if replies.response is not None:
            result["rouge"] = max(texts.rouge_recall(answer, replies.response) for answer in right_answers)
            result["exact_match"] = float(replies.response.strip() in [answer.strip() for answer in right_answers])
        return result

    requests = (response, right, *wrong, *([] if value is None else [value]), *candidates)
    return Question(requests, prompt, figures)


def wrong_of(row: Row) -> tuple[str, ...]:
    """The wrong answers of the truth ratio."""
    return row.perturbed or row.options


def right_of(measure: Answers, row: Row) -> str:
    """The right answer of the truth ratio."""
    return row.response if measure.right == "answer" or row.paraphrase is None else row.paraphrase


def _values(row: Row, asking: Asking) -> tuple[Encoded | None, list[Encoded]]:
    """The response with its own value and with each wrong one, where only the value's tokens count."""
    if not row.candidates:
        return None, []
    start = len(row.prefix)
    rest = row.response[start + len(row.value) :]

    def with_value(value: str) -> Encoded:
        return asking.encode(row, row.prefix + value + rest, (start, start + len(value)))

    return with_value(row.value), [with_value(candidate) for candidate in row.candidates]


def _odds(right: float, wrong: list[float]) -> dict[str, float]:
    return {"log_odds": metrics.log_odds(right, wrong), "choice": float(right < min(wrong))}
