"""Plausible wrong answers that a model itself gives: samples of its distribution without the true answer.

A model that has learned a fact answers it in nearly every sample, so sampling until another answer comes can take for
ever. Here an answer leaves the true one on purpose. With p_t the probability of the true answer's token t given those
before it, at the chosen temperature, the place where it leaves is drawn with

    P(t) proportional to p_1 ... p_(t-1) (1 - p_t)

its token there is drawn from the model's distribution without the true token, and all later tokens freely. That is the
model's own distribution over sequences, given that they differ from the true answer; no sample is thrown away for it.
Of a row that marks its value, answers leave at the value's last token at the latest: later ones would still contain it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from erulab import draws
from erulab.data.rows import Row
from erulab.errors import DataError
from erulab.evaluation.generation import generate
from erulab.evaluation.prompt import Draw, Prompt
from erulab.evaluation.texts import normalised_words
from erulab.methods.needs import Alternatives
from erulab.methods.seen import TokenValue
from erulab.models.loaded import LoadedModel
from erulab.models.request import ForwardRequest, PartRequest
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded, collate

# A sample that is empty, a repetition, or the true answer in other tokens is drawn anew, at most so often.
ROUNDS = 8


@dataclass(frozen=True)
class _Answered:
    """A question with its true answer, as the model reads them."""

    row: Row  # with the question as the template asks it
    encoded: Encoded  # ids[start:end] is the part of the answer in which alternatives leave it
    room: int  # new tokens that the model can read after the answer's beginning


def generate_alternatives(
    loaded: LoadedModel, rows: Sequence[Row], wanted: Alternatives, seed: int, batch_tokens: int, ranks: Ranks
) -> dict[str, list[str]]:
    """Samples plausible wrong answers to the rows' prompts.

    Args:
        rows: with a prompt each.
        wanted: how many of each row, and how to sample.
        seed: of the draws; those of a row are a function of it and the row's id.
        batch_tokens: tokens per forward.
    Returns:
        Row id -> `wanted.count` texts; where fewer different ones were found, they are repeated in turn.
    Raises:
        DataError: a row has no prompt, or none of its samples was another answer.
    """
    check_questions(rows)
    asked = [_ask(loaded, row, wanted.template) for row in rows]
    places = _leaving_log_probs(loaded, asked, wanted.temperature, batch_tokens, ranks)
    found: dict[str, list[str]] = {one.row.id: [] for one in asked}
    for attempt in range(ROUNDS):
        missing = [
            (one, logp, number)
            for one, logp in zip(asked, places, strict=True)
            for number in range(len(found[one.row.id]), wanted.count)
        ]
        prompts = [_prompt(one, logp, wanted, (seed, one.row.id, attempt, number)) for one, logp, number in missing]
        texts = generate(loaded, prompts, batch_tokens, ranks)
        for (one, _, _), text in zip(missing, texts, strict=True):
            if _is_new(one.row, text, found[one.row.id]):
                found[one.row.id].append(text)
    for row_id, texts in found.items():
        if not texts:
            raise DataError(
                f"row {row_id}: none of {ROUNDS * wanted.count} sampled answers differs from the true one; try a "
                f"higher method.temperature than {wanted.temperature}"
            )
    return {row_id: [texts[i % len(texts)] for i in range(wanted.count)] for row_id, texts in found.items()}


def leaving_log_probs(logp: torch.Tensor) -> torch.Tensor:
    """Returns the log of `p_1 ... p_(t-1) (1 - p_t)` for each t, normalised over t.

    Args:
        logp: (tokens,) float64 log p_t of an answer's tokens.
    Returns:
        (tokens,) float64 log-probabilities of leaving the answer at token t, given that it is left at one of them.
    """
    before = logp.cumsum(0) - logp
    # 1 - p_t underflows for a token that is certain; the bound keeps the sum finite if all are.
    return torch.log_softmax(before + torch.log((-torch.expm1(logp)).clamp(min=1e-30)), 0)


def check_questions(rows: Iterable[Row]) -> None:
    """Checks that each row is a question, which other answers can be given to.

    Raises:
        DataError: names the first row that is a text.
    """
    for row in rows:
        if not row.prompt or row.plain:
            raise DataError(
                f"an alternative answers a question, and row {row.id} is a text; take a method that compares with no "
                "other answer, such as method=npo, or write the text as prompt and response"
            )


def _ask(loaded: LoadedModel, row: Row, template: str) -> _Answered:
    asked = dataclasses.replace(row, prompt=template.replace("{prompt}", row.prompt))
    whole = loaded.chat.encode(asked)
    end = whole.end - loaded.chat.closing(whole)
    if row.value:
        end = loaded.chat.encode(asked, span=(0, len(row.prefix) + len(row.value))).end
    return _Answered(asked, dataclasses.replace(whole, end=end), loaded.chat.limit(None) - whole.start)


def _leaving_log_probs(
    loaded: LoadedModel, asked: Sequence[_Answered], temperature: float, batch_tokens: int, ranks: Ranks
) -> list[torch.Tensor]:
    """Computes `leaving_log_probs` of each true answer, by one forward over it."""

    def log_prob(logits: torch.Tensor, labels: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        return torch.log_softmax(logits / temperature, -1).gather(-1, labels[:, None])[:, 0]

    value = TokenValue("log_prob", log_prob)
    policy, found = loaded.policy, []
    for batch in _batches([one.encoded for one in ranks.mine(asked)], batch_tokens):
        sizes = [row.tokens for row in batch]
        request = ForwardRequest((PartRequest(len(batch), sum(sizes), nll=False, values=(value,)),))
        with torch.no_grad():
            (shown,) = policy(collate(batch, loaded.pad_id).to(policy.device), request)
        found += [leaving_log_probs(logp) for logp in shown.values["log_prob"].double().cpu().split(sizes)]
    return ranks.join(found)


def _batches(rows: Sequence[Encoded], batch_tokens: int) -> Iterator[list[Encoded]]:
    """Cuts rows into batches of at most `batch_tokens` padded tokens, but at least one row."""
    batch: list[Encoded] = []
    for row in rows:
        if batch and (len(batch) + 1) * max(len(one.ids) for one in (*batch, row)) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _prompt(one: _Answered, logp: torch.Tensor, wanted: Alternatives, draw: tuple[object, ...]) -> Prompt:
    """Draws where an alternative leaves the true answer, and returns what is to be continued from there."""
    uniform = draws.uniform("leave", *draw)
    cumulated = logp.exp().cumsum(0)
    kept = min(int(torch.searchsorted(cumulated / cumulated[-1], uniform, right=True)), len(logp) - 1)
    first = max(one.encoded.start, 1) + kept
    return Prompt(
        one.encoded.ids[:first],
        max(1, min(wanted.max_new_tokens, one.room) - kept),
        draw=Draw(draws.seed_of("alternative", *draw), wanted.temperature, excluded=one.encoded.ids[first]),
        begun=first - one.encoded.start,
    )


def _is_new(row: Row, text: str, earlier: Sequence[str]) -> bool:
    """Tells whether a text is a wrong answer that the row does not have yet; case and punctuation do not matter."""
    words = normalised_words(text)
    known = [normalised_words(other) for other in (row.response, *row.accepted, *earlier)]
    value = normalised_words(row.value)
    names_value = bool(value) and any(words[i : i + len(value)] == value for i in range(len(words)))
    return bool(words) and words not in known and not names_value
