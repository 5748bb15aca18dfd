"""NLL of wanted answers as a function of what is put into their prompts: of vectors, with its gradient, and of ids."""

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


def wanted(chat: ChatFormat, row: Row, most: int | None = None) -> Encoded:
    """The row up to what is to be made likely: its value where it has one, else its response.

    Args:
        most: tokens of it that count, from its beginning.
    """
    span = (len(row.prefix), len(row.prefix) + len(row.value)) if row.value else None
    found = chat.encode(row, span=span)
    end = found.end if most is None else min(found.end, max(found.start, 1) + most)
    return Encoded(row.id, found.ids[:end], found.start, end)


def nll_and_gradient(
    subject: LoadedModel, rows: Sequence[Encoded], vectors: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean NLL of each row's supervised tokens, and the gradient of their sum.

    Args:
        vectors: (soft ids, width), see `soft_tokens`.
    Returns:
        (rows,) nats a token; (soft ids, width).
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
    """Mean NLL a token of what is wanted, over rows that share a suffix.

    rows: with the ids from `first_soft_id` on where the suffix stands. table: (vocabulary, width) of embeddings.
    batch_tokens: computed tokens a forward.
    """

    subject: LoadedModel
    rows: Sequence[Encoded]
    table: torch.Tensor
    batch_tokens: int

    def of(self, suffixes: Sequence[Ids]) -> list[float]:
        """Nats a token under each suffix."""
        requests = [self._with(row, suffix) for suffix in suffixes for row in self.rows]
        scores = score(self.subject.policy, requests, self.subject.pad_id, self.batch_tokens, Ranks())
        n = len(self.rows)
        return [sum(one.mean_nll for one in scores[i * n : (i + 1) * n]) / n for i in range(len(suffixes))]

    def gradient(self, suffix: Ids) -> torch.Tensor:
        """(tokens, vocabulary) with respect to the one-hot vectors whose mixtures of embeddings the suffix is."""
        _, gradient = nll_and_gradient(self.subject, self.rows, self.table[list(suffix)])
        return gradient @ self.table.T / len(self.rows)

    def _with(self, row: Encoded, suffix: Ids) -> Encoded:
        place = row.ids.index(first_soft_id(self.subject.model))
        return replace(row, ids=row.ids[:place] + suffix + row.ids[place + len(suffix) :])
