"""Scores and responses under open-unlearning's attention mask, which hides every id that equals the pad token."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from erulab import logprobs
from erulab.costs.flops import TokenCounts
from erulab.evaluation.scoring import Score, Token
from erulab.models.loaded import LoadedModel
from erulab.models.meter import Meter
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded, collate

Ids = tuple[int, ...]
Item = TypeVar("Item")


def score_padded(loaded: LoadedModel, rows: Sequence[Encoded], batch_tokens: int, ranks: Ranks) -> list[Score]:
    """Scores each row's supervised tokens, in order, from rows padded on the right.

    Positions count from the row's beginning, whatever the mask hides. So the figures of a row do not depend on the
    other rows of its batch.

    Args:
        batch_tokens: padded tokens that one forward may have.
    """
    unique = sorted(set(rows), key=lambda row: (len(row.ids), row.ids, row.start))
    found: list[Score] = []
    for batch in _cut_by_length(ranks.mine(unique), batch_tokens, lambda row: len(row.ids)):
        found += _score_batch(loaded, batch)
    known = dict(zip(unique, ranks.join(found), strict=True))
    return [known[row] for row in rows]


def generate_padded(
    loaded: LoadedModel, prompts: Sequence[Ids], max_new_tokens: int, batch_tokens: int, ranks: Ranks
) -> list[Ids]:
    """Returns the ids that transformers' `generate` appends to each prompt, greedily, from prompts padded on the left.

    Positions count only the ids that the mask shows. The rest of the model's generation config (a repetition penalty,
    several end-of-text tokens) applies.

    Args:
        batch_tokens: number of padded prompt and response tokens that a batch may have.
    """
    unique = sorted(set(prompts), key=lambda prompt: (len(prompt), prompt))
    found: list[Ids] = []
    for batch in _cut_by_length(ranks.mine(unique), batch_tokens, lambda prompt: len(prompt) + max_new_tokens):
        found += _generate_batch(loaded, batch, max_new_tokens)
    known = dict(zip(unique, ranks.join(found), strict=True))
    return [known[prompt] for prompt in prompts]


def _score_batch(loaded: LoadedModel, rows: Sequence[Encoded]) -> list[Score]:
    policy = loaded.policy
    batch = collate(rows, loaded.pad_id)
    batch = dataclasses.replace(batch, attention_mask=(batch.input_ids != loaded.pad_id).long()).to(policy.device)
    labels = batch.input_ids[batch.supervised]
    tokens: list[Token] = []
    with torch.no_grad():
        states = policy.hidden_padded(batch)
        for some, true in zip(states.split(logprobs.CHUNK), labels.split(logprobs.CHUNK), strict=True):
            logp = logprobs.log_softmax(policy.head(some))
            nll = -logp.gather(1, true[:, None]).squeeze(1)
            greedy = logp.argmax(-1) == true
            tokens += map(Token, nll.tolist(), greedy.tolist())
    rest = iter(tokens)
    return [Score(tuple(next(rest) for _ in range(row.tokens))) for row in rows]


def _generate_batch(loaded: LoadedModel, prompts: Sequence[Ids], max_new_tokens: int) -> list[Ids]:
    model: Any = loaded.model
    longest = max(map(len, prompts))
    padded = [[loaded.pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    ids = torch.tensor(padded, device=model.device)
    out = model.generate(
        ids,
        attention_mask=(ids != loaded.pad_id).long(),
        do_sample=False,
        temperature=None,
        top_p=None,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        pad_token_id=loaded.tokenizer.eos_token_id,
    )
    meter = Meter(model, loaded.ledger, loaded.adapters)
    meter.forward(TokenCounts.continued(len(prompts), longest, longest), 0)
    for length in range(longest + 1, out.shape[1]):
        meter.forward(TokenCounts.continued(len(prompts), 1, length), 0)
    return [tuple(row) for row in out[:, longest:].tolist()]


def _cut_by_length(items: Sequence[Item], budget: int, length: Callable[[Item], int]) -> list[list[Item]]:
    """Cuts items in order of length into batches, each within the budget of padded tokens."""
    batches: list[list[Item]] = []
    for item in items:
        if batches and (len(batches[-1]) + 1) * length(item) <= budget:
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches
