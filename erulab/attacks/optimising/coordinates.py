"""Greedy coordinate gradient (Zou et al. 2023): the search over token ids, independent of any model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

Ids = tuple[int, ...]


@dataclass(frozen=True)
class BestSuffix:
    """The best token ids of a search so far, and their loss."""

    ids: Ids
    loss: float


def draw_substitutions(
    ids: Ids, gradient: torch.Tensor, allowed: torch.Tensor, *, topk: int, width: int, generator: torch.Generator
) -> list[Ids]:
    """Draws candidates that differ from `ids` in one position, where one of the topk best tokens replaces the id.

    Position and token are drawn uniformly, as in Zou et al., but without repetition: a width of positions times topk
    tries all pairs.

    Args:
        gradient: (positions, vocabulary) gradient of the loss with respect to one-hot vectors.
        allowed: (tokens,) int64 ids that may be inserted.
        topk: number of tokens per position with the most negative gradient.
        width: number of candidates.
    Returns:
        At most `width` candidates.
    """
    likes = -gradient[:, allowed]
    # The id that stands there already is not a substitution.
    likes = likes.masked_fill(allowed == torch.tensor(ids, device=allowed.device)[:, None], -torch.inf)
    topk = min(topk, len(allowed) - 1)
    best = allowed[likes.topk(topk, dim=1).indices].tolist()
    drawn = torch.randperm(len(ids) * topk, generator=generator)[:width].tolist()
    places = [divmod(pair, topk) for pair in drawn]
    return [(*ids[:i], best[i][rank], *ids[i + 1 :]) for i, rank in places]


def search_suffix(
    first: Ids,
    loss: Callable[[Sequence[Ids]], list[float]],
    gradient: Callable[[Ids], torch.Tensor],
    allowed: torch.Tensor,
    *,
    topk: int,
    width: int,
    generator: torch.Generator,
) -> Iterator[BestSuffix]:
    """Yields the best ids at the beginning and after each step, without end.

    Each step continues with its best candidate, even if that is worse than the ids before; the best ids ever are kept.

    Args:
        first: the ids at the beginning.
        loss: candidates -> their losses.
        gradient: ids -> (positions, vocabulary), as `draw_substitutions` takes it.
        allowed, topk, width, generator: see `draw_substitutions`.
    """
    current = first
    best = BestSuffix(first, loss([first])[0])
    while True:
        yield best
        candidates = draw_substitutions(
            current, gradient(current), allowed, topk=topk, width=width, generator=generator
        )
        losses = loss(candidates)
        current = candidates[losses.index(min(losses))]
        if min(losses) < best.loss:
            best = BestSuffix(current, min(losses))
