"""NLL of target answers as a function of the vectors or ids inserted into their prompts, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from erulab import logprobs
from erulab.data.rows import Row
from erulab.evaluation.scoring import Ids, score
from erulab.models.loaded import LoadedModel
from erulab.models.soft_tokens import first_soft_id, soft_tokens
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded, collate
from erulab.tokens.chat import ChatFormat

ROWS = 8  # in one forward with gradient


def encode_target(chat: ChatFormat, row: Row, most: int | None = None) -> Encoded:
    """Encodes a row up to the text that is to become probable: its value if it has one, otherwise its response.

    Args:
        most: number of tokens of that text that are supervised, from its beginning; None supervises all.
    """
    span = (len(row.prefix), len(row.prefix) + len(row.value)) if row.value else None
    found = chat.encode(row, span=span)
    end = found.end if most is None else min(found.end, max(found.start, 1) + most)
    return Encoded(row.id, found.ids[:end], found.start, end)


def nll_and_gradient(
    subject: LoadedModel, rows: Sequence[Encoded], vectors: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes the mean NLL of each row's supervised tokens, and the gradient of the sum of these means.

    Args:
        vectors: (soft ids, width) inserted vectors, see `soft_tokens`.
    Returns:
        (rows,) nats per token; (soft ids, width) gradient.
    """
    vectors = vectors.detach().requires_grad_()
    gradient, found = torch.zeros_like(vectors), []
    policy = subject.policy
    with torch.enable_grad(), soft_tokens(subject.model, vectors):
        for first in range(0, len(rows), ROWS):
            batch = collate(rows[first : first + ROWS], subject.pad_id).to(policy.device)
            nll = logprobs.token_nll(policy.hidden(batch), policy.head, batch.input_ids[batch.supervised])
            means = logprobs.row_sums(nll, batch.supervised) / batch.tokens
            gradient += policy.state_gradient(means.sum(), vectors, 0)
            found.append(means.detach())
    return torch.cat(found), gradient


@dataclass(frozen=True)
class SuffixLoss:
    """Mean NLL per token of the target answers of rows that share a suffix.

    rows: encoded rows in which ids from `first_soft_id` on mark the place of the suffix.
    table: (vocabulary, width) embeddings.
    batch_tokens: tokens that one forward may compute.
    """

    subject: LoadedModel
    rows: Sequence[Encoded]
    table: torch.Tensor
    batch_tokens: int

    def of(self, suffixes: Sequence[Ids]) -> list[float]:
        """Returns the loss of each suffix, nats per token."""
        requests = [self._put_suffix(row, suffix) for suffix in suffixes for row in self.rows]
        scores = score(self.subject.policy, requests, self.subject.pad_id, self.batch_tokens, Ranks())
        n = len(self.rows)
        return [sum(one.mean_nll for one in scores[i * n : (i + 1) * n]) / n for i in range(len(suffixes))]

    def gradient(self, suffix: Ids) -> torch.Tensor:
        """Returns the gradient with respect to the suffix as one-hot vectors, (tokens, vocabulary)."""
        _, gradient = nll_and_gradient(self.subject, self.rows, self.table[list(suffix)])
        return gradient @ self.table.T / len(self.rows)

    def _put_suffix(self, row: Encoded, suffix: Ids) -> Encoded:
        place = row.ids.index(first_soft_id(self.subject.model))
        return replace(row, ids=row.ids[:place] + suffix + row.ids[place + len(suffix) :])
