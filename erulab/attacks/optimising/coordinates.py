"""Greedy coordinate gradient (Zou et al. 2023): the search over token ids, apart from any model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """The best ids so far and their loss."""

    ids: Ids
    loss: float


def substitutions(
    ids: Ids, gradient: torch.Tensor, allowed: torch.Tensor, *, topk: int, width: int, generator: torch.Generator
) -> list[Ids]:
    """Candidates that differ from `ids` in one place, each by one of the tokens that the gradient likes best there.

    Place and token are drawn evenly, as by Zou et al., but no pair twice: a width of positions times topk tries all.

    Args:
        gradient: (positions, vocabulary) of the loss with respect to one-hot vectors.
        allowed: (tokens,) int64 ids that may be put in.
    Returns:
        At most `width` candidates.
    """
    likes = -gradient[:, allowed]
    # What stands there already is no substitution.
    likes = likes.masked_fill(allowed == torch.tensor(ids, device=allowed.device)[:, None], -torch.inf)
    topk = min(topk, len(allowed) - 1)
    best = allowed[likes.topk(topk, dim=1).indices].tolist()
    drawn = torch.randperm(len(ids) * topk, generator=generator)[:width].tolist()
    places = [divmod(pair, topk) for pair in drawn]
    return [(*ids[:i], best[i][rank], *ids[i + 1 :]) for i, rank in places]


def descend(
    first: Ids,
    loss: Callable[[Sequence[Ids]], list[float]],
    gradient: Callable[[Ids], torch.Tensor],
    allowed: torch.Tensor,
    *,
    topk: int,
    width: int,
    generator: torch.Generator,
) -> Iterator[Found]:
    """The best ids at the beginning and after each step, without end.

    Each step goes on with its best candidate, even where that is worse than what it came from; the best is kept.
    """
    current = first
    best = Found(first, loss([first])[0])
    while True:
        yield best
        candidates = substitutions(current, gradient(current), allowed, topk=topk, width=width, generator=generator)
        losses = loss(candidates)
        current = candidates[losses.index(min(losses))]
        if min(losses) < best.loss:
            best = Found(current, min(losses))
