"""Teacher-forced scores: what a model makes of each supervised token, one forward for all requests that share it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch

from erulab import logprobs
from erulab.models.policy import Policy
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded, collate

Ids = tuple[int, ...]
# A token at a position, which is asked for given the ids before it.
Ask = tuple[int, int]


@dataclass(frozen=True)
class Token:
    """One supervised token under the model's distribution at its place.

    nll: nats. greedy: it is the likeliest token there. mean, deviation: of the log-probability of a token drawn from
    that distribution; 0 unless they were asked for.
    """

    nll: float
    greedy: bool
    mean: float = 0.0
    deviation: float = 0.0


@dataclass(frozen=True)
class Score:
    """The supervised tokens of one request, in order."""

    tokens: tuple[Token, ...]

    @property
    def nll(self) -> float:
        """Of the whole sequence, nats."""
        return math.fsum(token.nll for token in self.tokens)

    @property
    def mean_nll(self) -> float:
        """Nats a token."""
        return self.nll / len(self.tokens)


def score(
    policy: Policy,
    rows: Sequence[Encoded],
    pad_id: int,
    batch_tokens: int,
    ranks: Ranks,
    spread: Collection[Encoded] = (),
) -> list[Score]:
    """Each row's supervised tokens, in the order of the rows.

    A causal model predicts a token from the ids before it, so a row whose ids up to its last supervised token open
    another row is answered by that row's forward: all candidate values of a question, where a value is one token, and
    the whole response share one. Rows that begin alike (a question with its answers) stand together, so that their
    common opening is computed once.

    Args:
        batch_tokens: computed tokens a forward; no figure depends on it but by rounding.
        spread: rows whose tokens also need the mean and deviation of the model's log-probabilities.
    """
    shared = _longest_openings(row.ids[: row.end - 1] for row in rows)
    asked: dict[Ids, dict[Ask, None]] = {}
    spreading: set[Ids] = {shared[row.ids[: row.end - 1]] for row in spread}
    for row in rows:
        asked.setdefault(shared[row.ids[: row.end - 1]], {}).update(dict.fromkeys(_asks(row)))
    shares = policy.shares_openings(max(map(len, asked), default=0) + 1)
    # Alphabetically, rows that begin alike stand together; by length, little is padded.
    sequences = sorted(asked) if shares else sorted(asked, key=lambda ids: (len(ids), ids))
    found: list[dict[Ask, Token]] = []
    batches = (_trees if shares else _padded)(ranks.mine(sequences), batch_tokens)
    most = max(ranks.gather_objects(len(batches)))
    for batch in batches:
        found.extend(_tokens(policy, [(ids, list(asked[ids])) for ids in batch], pad_id, spreading))
    # Under ZeRO-3 a forward is a collective: a rank with fewer batches runs a short one that nobody asked for.
    for _ in range(most - len(batches)):
        _tokens(policy, [(sequences[0], list(asked[sequences[0]]))], pad_id, spreading)
    tokens = dict(zip(sequences, ranks.join(found), strict=True))
    scores = []
    for row in rows:
        known = tokens[shared[row.ids[: row.end - 1]]]
        scores.append(Score(tuple(known[ask] for ask in _asks(row))))
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


def _padded(sequences: Sequence[Ids], batch_tokens: int) -> list[list[Ids]]:
    """Sequences in order of length, each batch within the budget of padded tokens."""
    batches: list[list[Ids]] = []
    for ids in sequences:  # the last of a batch is its longest
        if batches and (len(batches[-1]) + 1) * len(ids) <= batch_tokens:
            batches[-1].append(ids)
        else:
            batches.append([ids])
    return batches


def _trees(sequences: Sequence[Ids], batch_tokens: int) -> list[list[Ids]]:
    """Sequences in alphabetical order, cut where the tokens that a tree of them holds would exceed the budget."""
    batches: list[list[Ids]] = []
    tokens = 0
    for ids in sequences:
        new = len(ids) - (_common(batches[-1][-1], ids) if batches else 0)
        if batches and tokens + new <= batch_tokens:
            batches[-1].append(ids)
            tokens += new
        else:
            batches.append([ids])
            tokens = len(ids)
    return batches


def _common(a: Ids, b: Ids) -> int:
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)


def _tokens(
    policy: Policy, requests: list[tuple[Ids, list[Ask]]], pad_id: int, spreading: Collection[Ids]
) -> list[dict[Ask, Token]]:
    """For each sequence: (position, token) -> what the model makes of that token there."""
    # A position is read from the state before it, and the last one asked for stands right after the sequence: any
    # token appended there marks it. No real token sees what is appended.
    rows = [Encoded("", (*ids, pad_id), min(asks)[0], len(ids) + 1) for ids, asks in requests]
    batch = collate(rows, pad_id).to(policy.device)
    # Row-major index among the states that `hidden` returns: those from a row's first position asked for to its end.
    lengths = [row.end - row.start for row in rows]
    firsts = [sum(lengths[:i]) - row.start for i, row in enumerate(rows)]
    asked = [
        [(first + position, token) for position, token in asks]
        for first, (_, asks) in zip(firsts, requests, strict=True)
    ]
    spread = {state for (ids, _), pairs in zip(requests, asked, strict=True) if ids in spreading for state, _ in pairs}
    with torch.no_grad():
        found = _ask(policy, policy.hidden(batch, scoring=True), [pair for pairs in asked for pair in pairs], spread)
    return [
        {ask: found[pair] for ask, pair in zip(asks, pairs, strict=True)}
        for (_, asks), pairs in zip(requests, asked, strict=True)
    ]


def _ask(policy: Policy, hidden: torch.Tensor, asked: list[Ask], spread: Collection[int]) -> dict[Ask, Token]:
    """(state, token) -> Token; the vocabulary's logits are made once a state, for few states at a time."""
    values: dict[Ask, Token] = {}
    ordered = sorted(asked)
    states = sorted({state for state, _ in asked})
    first_pair = 0
    for first in range(0, len(states), logprobs.CHUNK):
        chunk = states[first : first + logprobs.CHUNK]
        place = {state: i for i, state in enumerate(chunk)}
        last_pair = first_pair
        while last_pair < len(ordered) and ordered[last_pair][0] in place:
            last_pair += 1
        pairs = ordered[first_pair:last_pair]
        first_pair = last_pair
        logp = logprobs.log_softmax(policy.head(hidden[chunk]))
        likeliest = logp.argmax(-1).tolist()
        picked = logp[[place[state] for state, _ in pairs], [token for _, token in pairs]]
        moments = _moments(logp, [place[state] for state in chunk if state in spread])
        for (state, token), value in zip(pairs, (-picked).tolist(), strict=True):
            i = place[state]
            values[state, token] = Token(value, likeliest[i] == token, *moments.get(i, ()))
    return values


def _moments(logp: torch.Tensor, rows: list[int]) -> dict[int, tuple[float, float]]:
    """Row -> mean and deviation of the log-probability of a token drawn from its distribution."""
    if not rows:
        return {}
    mean, deviation = logprobs.log_prob_moments(logp[rows])
    return dict(zip(rows, zip(mean.tolist(), deviation.tolist(), strict=True), strict=True))
