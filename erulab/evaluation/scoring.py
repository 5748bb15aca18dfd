"""Teacher-forced scores: the NLL of supervised tokens, one forward for all requests that share it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from erulab import logprobs
from erulab.data.encoding import Encoded, collate
from erulab.models.policy import Policy
from erulab.ranks import Ranks

Score = tuple[float, int]  # sequence NLL in nats, supervised tokens
Ids = tuple[int, ...]
# A token at a position, whose NLL is asked for given the ids before it.
Ask = tuple[int, int]


def score(policy: Policy, rows: Sequence[Encoded], pad_id: int, batch_tokens: int, ranks: Ranks) -> list[Score]:
    """Each row's NLL over its supervised tokens, and their number; in the order of the rows.

    A causal model predicts a token from the ids before it, so a row whose ids up to its last supervised token open
    another row is answered by that row's forward: all candidate values of a question, where a value is one token,
    and the whole response share one.

    Args:
        batch_tokens: padded tokens a forward; no figure depends on it but by rounding.
    """
    shared = _longest_openings(row.ids[: row.end - 1] for row in rows)
    asked: dict[Ids, dict[Ask, None]] = {}
    for row in rows:
        asked.setdefault(shared[row.ids[: row.end - 1]], {}).update(dict.fromkeys(_asks(row)))
    sequences = sorted(asked, key=lambda ids: (len(ids), ids))
    found: list[dict[Ask, float]] = []
    batches = _batches(ranks.mine(sequences), batch_tokens)
    most = max(ranks.gather_objects(len(batches)))
    for batch in batches:
        found.extend(_token_nll(policy, [(ids, list(asked[ids])) for ids in batch], pad_id))
    # Under ZeRO-3 a forward is a collective: a rank with fewer batches runs a short one that nobody asked for.
    for _ in range(most - len(batches)):
        _token_nll(policy, [(sequences[0], list(asked[sequences[0]]))], pad_id)
    nll = dict(zip(sequences, ranks.join(found), strict=True))
    scores = []
    for row in rows:
        tokens = nll[shared[row.ids[: row.end - 1]]]
        scores.append((math.fsum(tokens[ask] for ask in _asks(row)), row.tokens))
    return scores


def _asks(row: Encoded) -> list[Ask]:
    return [(position, row.ids[position]) for position in range(max(row.start, 1), row.end)]


def _longest_openings(contexts: Iterable[Ids]) -> dict[Ids, Ids]:
    """Each context -> a context that no other one continues, and that begins with it."""
    longest: dict[Ids, Ids] = {}
    last: Ids = ()
    # In reverse order of the alphabet, what continues a context stands right before it.
    for context in sorted(set(contexts), reverse=True):
        last = last if last[: len(context)] == context else context
        longest[context] = last
    return longest


def _batches(sequences: Sequence[Ids], batch_tokens: int) -> list[list[Ids]]:
    """Sequences of like length together, each batch within the budget of padded tokens."""
    batches: list[list[Ids]] = []
    for ids in sequences:  # sorted by length: the last of a batch is its longest
        if batches and (len(batches[-1]) + 1) * len(ids) <= batch_tokens:
            batches[-1].append(ids)
        else:
            batches.append([ids])
    return batches


def _token_nll(policy: Policy, requests: list[tuple[Ids, list[Ask]]], pad_id: int) -> list[dict[Ask, float]]:
    """For each sequence: (position, token) -> NLL of the token there, nats."""
    # A position is read from the state before it, and the last one asked for stands right after the sequence: any
    # token appended there marks it. No real token sees what is appended.
    rows = [Encoded("", (*ids, pad_id), min(asks)[0], len(ids) + 1) for ids, asks in requests]
    batch = collate(rows, pad_id).to(policy.device)
    # Row-major index among the states that `hidden` returns: those from a row's first position asked for to its end.
    lengths = [row.end - row.start for row in rows]
    firsts = [sum(lengths[:i]) - row.start for i, row in enumerate(rows)]
    asked = [(first + position, token) for first, (_, asks) in zip(firsts, requests, strict=True)
             for position, token in asks]  # fmt: skip
    with torch.no_grad():
        nll = _ask(policy, policy.hidden(batch), asked)
    results = iter(nll)
    return [{ask: next(results) for ask in asks} for _, asks in requests]


def _ask(policy: Policy, hidden: torch.Tensor, asked: list[tuple[int, int]]) -> list[float]:
    """NLL of (state, token) pairs; the vocabulary's logits are made once a state, for few states at a time."""
    values: dict[tuple[int, int], float] = {}
    ordered = sorted(asked)
    states = sorted({state for state, _ in asked})
    for first in range(0, len(states), logprobs.CHUNK):
        chunk = states[first : first + logprobs.CHUNK]
        place = {state: i for i, state in enumerate(chunk)}
        pairs = [pair for pair in ordered if pair[0] in place]
        logp = logprobs.log_softmax(policy.head(hidden[chunk]))
        picked = logp[[place[state] for state, _ in pairs], [token for _, token in pairs]]
        values.update(zip(pairs, (-picked).tolist(), strict=True))
    return [values[pair] for pair in asked]
