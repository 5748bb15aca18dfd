"""Teacher-forced scores: the NLL of each supervised token, with one forward for all requests that can share it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import torch

from erulab import logprobs
from erulab.models.packing import common_length
from erulab.models.policy import Policy
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded, collate

Ids = tuple[int, ...]
# (position, token): the token is scored at this position, given the ids before it.
TokenQuery = tuple[int, int]
# Is told (what is counted, how many are done, how many there are) after each batch.
Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Token:
    """One supervised token under the model's distribution at its position.

    nll: nats.
    greedy: whether it is the most probable token there.
    mean, deviation: of the log-probability of a token drawn from that distribution; 0 unless they were requested.
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
        """NLL of the whole sequence, nats."""
        return math.fsum(token.nll for token in self.tokens)

    @property
    def mean_nll(self) -> float:
        """NLL per token, nats."""
        return self.nll / len(self.tokens)


def score(
    policy: Policy,
    rows: Sequence[Encoded],
    pad_id: int,
    batch_tokens: int,
    ranks: Ranks,
    with_moments: Collection[Encoded] = (),
    head_positions: int = logprobs.CHUNK,
    watch: Watch | None = None,
) -> list[Score]:
    """Scores each row's supervised tokens, in the order of the rows.

    A causal model predicts a token from the ids before it. If the ids before a row's last supervised token are the
    beginning of another row, that row's forward scores both. So all one-token candidate values of a question share one
    forward with the whole response. Rows that begin with the same ids (a question with its answers) stand next to each
    other, so that their common opening is computed once.

    Args:
        batch_tokens: tokens that one forward may compute; figures depend on it by rounding only.
        with_moments: rows whose tokens also need the mean and deviation of the model's log-probabilities.
        head_positions: positions whose logits exist at once.
        watch: is told how many of this rank's sequences are scored.
    """
    shared = _longest_openings(row.ids[: row.end - 1] for row in rows)
    asked: dict[Ids, dict[TokenQuery, None]] = {}
    moment_sequences: set[Ids] = {shared[row.ids[: row.end - 1]] for row in with_moments}
    for row in rows:
        asked.setdefault(shared[row.ids[: row.end - 1]], {}).update(dict.fromkeys(_queries(row)))
    shares = policy.shares_openings(max(map(len, asked), default=0) + 1)
    # In lexical order, rows with a common opening are neighbours; in order of length, there is little padding.
    sequences = sorted(asked) if shares else sorted(asked, key=lambda ids: (len(ids), ids))
    found: list[dict[TokenQuery, Token]] = []
    own = ranks.mine(sequences)
    batches = (_cut_trees if shares else _cut_padded)(own, batch_tokens)
    most = max(ranks.gather_objects(len(batches)))
    for batch in batches:
        if watch is not None:
            watch("sequences scored", len(found), len(own))
        requests = [(ids, list(asked[ids])) for ids in batch]
        found.extend(_tokens(policy, requests, pad_id, moment_sequences, head_positions))
    if watch is not None:
        watch("sequences scored", len(own), len(own))
    # Under ZeRO-3 all ranks must run the same number of forwards: a rank with fewer batches repeats a short one.
    for _ in range(most - len(batches)):
        _tokens(policy, [(sequences[0], list(asked[sequences[0]]))], pad_id, moment_sequences, head_positions)
    tokens = dict(zip(sequences, ranks.join(found), strict=True))
    scores = []
    for row in rows:
        known = tokens[shared[row.ids[: row.end - 1]]]
        scores.append(Score(tuple(known[query] for query in _queries(row))))
    return scores


def _queries(row: Encoded) -> list[TokenQuery]:
    return [(position, row.ids[position]) for position in row.positions]


def _longest_openings(contexts: Iterable[Ids]) -> dict[Ids, Ids]:
    """Maps each context to the longest context it is a prefix of; only those are run."""
    longest: dict[Ids, Ids] = {}
    last: Ids = ()
    # In reverse lexical order, a context that continues another one stands right before it.
    for context in sorted(set(contexts), reverse=True):
        last = last if last[: len(context)] == context else context
        longest[context] = last
    return longest


def _cut_padded(sequences: Sequence[Ids], batch_tokens: int) -> list[list[Ids]]:
    """Cuts sequences in order of length into batches, each within the budget of padded tokens."""
    batches: list[list[Ids]] = []
    for ids in sequences:  # the last sequence of a batch is its longest
        if batches and (len(batches[-1]) + 1) * len(ids) <= batch_tokens:
            batches[-1].append(ids)
        else:
            batches.append([ids])
    return batches


def _cut_trees(sequences: Sequence[Ids], batch_tokens: int) -> list[list[Ids]]:
    """Cuts sequences in lexical order into batches whose prefix trees stay within the budget of tokens."""
    batches: list[list[Ids]] = []
    tokens = 0
    for ids in sequences:
        new = len(ids) - (common_length(batches[-1][-1], ids) if batches else 0)
        if batches and tokens + new <= batch_tokens:
            batches[-1].append(ids)
            tokens += new
        else:
            batches.append([ids])
            tokens = len(ids)
    return batches


def _tokens(
    policy: Policy,
    requests: list[tuple[Ids, list[TokenQuery]]],
    pad_id: int,
    moment_sequences: Collection[Ids],
    head_positions: int,
) -> list[dict[TokenQuery, Token]]:
    """Returns, for each sequence, the scored token of each (position, token) that is asked for."""
    # The token at a position is predicted from the state before it. The last queried position lies right after the
    # sequence, so one token is appended there to mark it; no real token attends to it.
    rows = [Encoded("", (*ids, pad_id), min(queries)[0], len(ids) + 1) for ids, queries in requests]
    batch = collate(rows, pad_id).to(policy.device)
    # `hidden` returns the states from each row's first queried position to its end, row by row: index into these.
    lengths = [row.end - row.start for row in rows]
    firsts = [sum(lengths[:i]) - row.start for i, row in enumerate(rows)]
    asked = [
        [(first + position, token) for position, token in queries]
        for first, (_, queries) in zip(firsts, requests, strict=True)
    ]
    with_moments = {
        state for (ids, _), pairs in zip(requests, asked, strict=True) if ids in moment_sequences for state, _ in pairs
    }
    with torch.no_grad():
        hidden = policy.hidden(batch, scoring=True)
        pairs_of_all = [pair for pairs in asked for pair in pairs]
        found = _score_states(policy, hidden, pairs_of_all, with_moments, head_positions)
    return [
        {query: found[pair] for query, pair in zip(queries, pairs, strict=True)}
        for (_, queries), pairs in zip(requests, asked, strict=True)
    ]


def _score_states(
    policy: Policy,
    hidden: torch.Tensor,
    asked: list[tuple[int, int]],
    with_moments: Collection[int],
    head_positions: int,
) -> dict[tuple[int, int], Token]:
    """Maps each (state index, token) to its score. The logits over the vocabulary are computed once per state, for few
    states at a time.

    Args:
        hidden: (states, width).
        with_moments: indices of the states whose mean and deviation are needed.
        head_positions: states whose logits exist at once.
    """
    values: dict[tuple[int, int], Token] = {}
    ordered = sorted(asked)
    states = sorted({state for state, _ in asked})
    first_pair = 0
    for first in range(0, len(states), head_positions):
        chunk = states[first : first + head_positions]
        place = {state: i for i, state in enumerate(chunk)}
        last_pair = first_pair
        while last_pair < len(ordered) and ordered[last_pair][0] in place:
            last_pair += 1
        pairs = ordered[first_pair:last_pair]
        first_pair = last_pair
        logp = logprobs.log_softmax(policy.head(hidden[chunk]))
        likeliest = logp.max(-1).indices.tolist()  # on CPUs faster than argmax
        picked = logp[[place[state] for state, _ in pairs], [token for _, token in pairs]]
        moments = _moments(logp, [place[state] for state in chunk if state in with_moments])
        for (state, token), value in zip(pairs, (-picked).tolist(), strict=True):
            i = place[state]
            values[state, token] = Token(value, likeliest[i] == token, *moments.get(i, ()))
    return values


def _moments(logp: torch.Tensor, rows: list[int]) -> dict[int, tuple[float, float]]:
    """Maps each row to the mean and deviation of the log-probability of a token drawn from its distribution."""
    if not rows:
        return {}
    mean, deviation = logprobs.log_prob_moments(logp[rows])
    return dict(zip(rows, zip(mean.tolist(), deviation.tolist(), strict=True), strict=True))
