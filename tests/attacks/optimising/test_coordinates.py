"""Greedy coordinate gradient against exhaustive search, on losses in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import pytest
import torch

from erulab.attacks.optimising.coordinates import Ids, draw_substitutions, search_suffix

VOCABULARY = 9
ALLOWED = torch.tensor([0, 1, 2, 4, 5, 6, 8])


def table(places: int) -> torch.Tensor:
    return torch.randn(places, VOCABULARY, generator=torch.Generator().manual_seed(3))


def tried(ids: Ids, *, topk: int, width: int, seed: int = 0) -> list[Ids]:
    generator = torch.Generator().manual_seed(seed)
    return draw_substitutions(ids, table(len(ids)), ALLOWED, topk=topk, width=width, generator=generator)


@pytest.mark.parametrize("ids", [(4,), (8, 0)])
def test_a_width_that_covers_all_tries_every_other_token_in_every_place_once(ids: Ids) -> None:
    every = {(*ids[:i], token, *ids[i + 1 :]) for i in range(len(ids)) for token in ALLOWED.tolist()} - {ids}
    found = tried(ids, topk=VOCABULARY, width=100)
    assert set(found) == every and len(found) == len(every)


def test_only_the_tokens_that_lower_the_loss_most_are_tried() -> None:
    ids = (4, 6)
    gradient = table(2)
    for candidate in tried(ids, topk=2, width=100):
        (place,) = [i for i in range(2) if candidate[i] != ids[i]]
        others = sorted(gradient[place, token].item() for token in ALLOWED.tolist() if token != ids[place])
        assert gradient[place, candidate[place]] <= others[1]
    assert len(tried(ids, topk=2, width=3)) == 3
    assert tried(ids, topk=5, width=3, seed=0) != tried(ids, topk=5, width=3, seed=1)


@pytest.mark.parametrize("places", [1, 2])
def test_each_step_finds_the_best_single_substitution(places: int) -> None:
    """The loss is not a sum over positions, so the gradient does not help; the width alone finds the best."""
    values = torch.randn([VOCABULARY] * places, generator=torch.Generator().manual_seed(5))

    def loss(candidates: Sequence[Ids]) -> list[float]:
        return [values[ids].item() for ids in candidates]

    search = search_suffix(
        (4,) * places,
        loss,
        lambda ids: torch.zeros(places, VOCABULARY),
        ALLOWED,
        topk=VOCABULARY,
        width=100,
        generator=torch.Generator(),
    )
    first, second = islice(search, 2)
    assert (first.ids, first.loss) == ((4,) * places, values[(4,) * places].item())
    around = [
        (*first.ids[:i], token, *first.ids[i + 1 :])
        for i in range(places)
        for token in ALLOWED.tolist()
        if token != first.ids[i]
    ]
    assert second.loss == min(first.loss, *loss(around))


def test_the_best_so_far_never_gets_worse_though_the_search_goes_on() -> None:
    values = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(6))
    seen: list[float] = []

    def loss(candidates: Sequence[Ids]) -> list[float]:
        found = [values[ids].item() for ids in candidates]
        seen.append(min(found))
        return found

    search = search_suffix(
        (0, 0),
        loss,
        lambda ids: torch.zeros(2, VOCABULARY),
        ALLOWED,
        topk=3,
        width=2,
        generator=torch.Generator().manual_seed(1),
    )
    found = [one.loss for one in islice(search, 20)]
    assert found == [min(seen[: i + 1]) for i in range(20)]
    assert found[-1] < found[0]
    assert any(b > a for a, b in zip(seen, seen[1:], strict=False))  # it does go through worse ones
