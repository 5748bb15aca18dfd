"""open-unlearning's TOFU protocol: what a row asks, and the figures of its replies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from erulab.data.measures import Answers
from erulab.data.rows import Row, Suite
from erulab.errors import DataError
from erulab.evaluation import texts
from erulab.evaluation.open_unlearning import arithmetic
from erulab.evaluation.open_unlearning.forwards import Ids, forced, responses
from erulab.evaluation.protocols.answers import right_of, wrong_of
from erulab.evaluation.scoring import Score
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded


@dataclass(frozen=True)
class Asked:
    """One row's conversations, by response, and its prompt."""

    response: Encoded
    right: Encoded  # what the truth ratio holds against wrong answers
    wrong: tuple[Encoded, ...]
    among: bool  # the probability is taken among the wrong answers
    prompt: Ids

    @property
    def requests(self) -> tuple[Encoded, ...]:
        return self.response, self.right, *self.wrong


def figures(
    loaded: LoadedModel, picked: Sequence[tuple[Suite, Row]], options: EvaluationOptions, ranks: Ranks
) -> list[dict[str, float]]:
    """For each row: probability, extraction_strength, exact_memorization; truth_ratio (R) where it has wrong answers,
    rouge where responses are generated. Nothing for running text, and for rows that are not measured by `Answers`.

    Raises:
        DataError: the template's opening for generation is as long as a row's whole conversation.
    """
    asked = [
        _asked(loaded, suite.measure, row)
        if isinstance(suite.measure, Answers) and not (row.plain or row.answer_prefix)
        else None
        for suite, row in picked
    ]
    there = [one for one in asked if one is not None]
    if not there:
        return [{} for _ in asked]
    requests = [request for one in there for request in one.requests]
    scores = dict(zip(requests, forced(loaded, requests, options.batch_tokens, ranks), strict=True))
    prompts = [one.prompt for one in there] if options.generate else []
    replies = responses(loaded, prompts, options.max_new_tokens, options.batch_tokens, ranks) if prompts else []
    answered = dict(zip(prompts, replies, strict=True))
    return [{} if one is None else _figures(loaded, one, scores, answered.get(one.prompt)) for one in asked]


def _asked(loaded: LoadedModel, measure: Answers, row: Row) -> Asked:
    prompt, _ = loaded.chat.encode_by_template(row, row.response)
    response = _conversation(loaded, row, row.response)
    wrong = tuple(_conversation(loaded, row, text) for text in wrong_of(row))
    right = _conversation(loaded, row, right_of(measure, row)) if wrong else response
    return Asked(response, right, wrong, bool(row.options), tuple(prompt))


def _conversation(loaded: LoadedModel, row: Row, response: str) -> Encoded:
    prompt, whole = loaded.chat.encode_by_template(row, response)
    end: int = loaded.tokenizer.eos_token_id
    ids = whole if whole[-1] == end else [*whole, end]
    if len(prompt) > len(ids) - 2:
        raise DataError(
            f"row {row.id}: the chat template opens a turn for generation with {len(prompt)} tokens, a whole "
            f"conversation has {len(ids)}: open-unlearning scores nothing then; type evaluation.compat=none"
        )
    return Encoded("", tuple(ids), len(prompt), len(ids))


def _figures(loaded: LoadedModel, asked: Asked, scores: Mapping[Encoded, Score], reply: Ids | None) -> dict[str, float]:
    own, right = scores[asked.response], scores[asked.right]
    wrong = [scores[request].mean_nll for request in asked.wrong]
    probability = arithmetic.probability_among(own.mean_nll, wrong) if asked.among else math.exp(-own.mean_nll)
    result = {"probability": probability, **arithmetic.memorised([token.greedy for token in own.tokens])}
    if wrong:
        result["truth_ratio"] = arithmetic.truth_ratio(right.mean_nll, wrong)
    if reply is not None:
        # The reference is what the whole conversation reads, without what the prompt reads.
        reference = _text(loaded, asked.response.ids).replace(_text(loaded, asked.prompt), "").strip()
        result["rouge"] = texts.rouge_recall(reference, _text(loaded, reply).strip())
    return result


def _text(loaded: LoadedModel, ids: Ids) -> str:
    """As transformers before its version 5 decoded: spaces before punctuation closed for every kind of tokenizer."""
    tokenizer = loaded.tokenizer
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(tokenizer.clean_up_tokenization(str(text)))
