"""open-unlearning's TOFU protocol: what a row requests of a model, and the figures of the results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from erulab.data.measures import Answers
from erulab.data.rows import Row, Suite
from erulab.errors import DataError
from erulab.evaluation import texts
from erulab.evaluation.open_unlearning import arithmetic
from erulab.evaluation.open_unlearning.forwards import Ids, generate_padded, score_padded
from erulab.evaluation.protocols.answers import right_answer, wrong_answers
from erulab.evaluation.scoring import Score
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded


@dataclass(frozen=True)
class Conversations:
    """One row's conversations, one per response, and its prompt."""

    response: Encoded
    right: Encoded  # the right answer of the truth ratio
    wrong: tuple[Encoded, ...]
    among: bool  # whether the probability is relative to the wrong answers'
    prompt: Ids

    @property
    def requests(self) -> tuple[Encoded, ...]:
        return self.response, self.right, *self.wrong


def row_figures(
    loaded: LoadedModel, suite_rows: Sequence[tuple[Suite, Row]], options: EvaluationOptions, ranks: Ranks
) -> list[dict[str, float]]:
    """Returns the figures of each row: probability, extraction_strength, exact_memorization; truth_ratio (R) if it has
    wrong answers, then paraphrase_probability if it has a paraphrase; rouge if responses are generated.

    Running text and rows not measured by `Answers` get {}.

    Args:
        loaded: the model, in evaluation mode.
        suite_rows: each row with its suite.
        options: the run's `evaluation` options.

    Raises:
        DataError: the template's generation prompt is as long as a row's whole conversation.
    """
    asked = [
        _conversations(loaded, suite.measure, row)
        if isinstance(suite.measure, Answers) and not (row.plain or row.answer_prefix)
        else None
        for suite, row in suite_rows
    ]
    there = [one for one in asked if one is not None]
    if not there:
        return [{} for _ in asked]
    requests = [request for one in there for request in one.requests]
    scores = dict(zip(requests, score_padded(loaded, requests, options.fixed_tokens, ranks), strict=True))
    prompts = [one.prompt for one in there] if options.generate else []
    replies = generate_padded(loaded, prompts, options.max_new_tokens, options.fixed_tokens, ranks) if prompts else []
    answered = dict(zip(prompts, replies, strict=True))
    return [{} if one is None else _figures(loaded, one, scores, answered.get(one.prompt)) for one in asked]


def _conversations(loaded: LoadedModel, measure: Answers, row: Row) -> Conversations:
    prompt, _ = loaded.chat.encode_by_template(row, row.response)
    response = _conversation(loaded, row, row.response)
    wrong = tuple(_conversation(loaded, row, text) for text in wrong_answers(row))
    right = _conversation(loaded, row, right_answer(measure, row)) if wrong else response
    return Conversations(response, right, wrong, bool(row.options), tuple(prompt))


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


def _figures(
    loaded: LoadedModel, asked: Conversations, scores: Mapping[Encoded, Score], reply: Ids | None
) -> dict[str, float]:
    own, right = scores[asked.response], scores[asked.right]
    wrong = [scores[request].mean_nll for request in asked.wrong]
    among = asked.among
    probability = arithmetic.probability_with_options(own.mean_nll, wrong) if among else math.exp(-own.mean_nll)
    result = {"probability": probability, **arithmetic.memorisation_figures([token.greedy for token in own.tokens])}
    if wrong:
        result["truth_ratio"] = arithmetic.truth_ratio(right.mean_nll, wrong)
        if asked.right != asked.response:
            result["paraphrase_probability"] = math.exp(-right.mean_nll)
    if reply is not None:
        # The reference is the text of the whole conversation without the text of the prompt.
        reference = _text(loaded, asked.response.ids).replace(_text(loaded, asked.prompt), "").strip()
        result["rouge"] = texts.rouge_recall(reference, _text(loaded, reply).strip())
    return result


def _text(loaded: LoadedModel, ids: Ids) -> str:
    """Decodes as transformers did before version 5: without spaces before punctuation, for every kind of tokenizer."""
    tokenizer = loaded.tokenizer
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(tokenizer.clean_up_tokenization(str(text)))
