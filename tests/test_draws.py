"""Random draws are pure functions of the seed and of the parts that name the draw."""

from __future__ import annotations

import hashlib

import torch

from erulab import draws


def test_seed_is_the_head_of_a_sha256() -> None:
    digest = hashlib.sha256(b"7\x1fmask\x1f3\x1frow-1").hexdigest()
    assert draws.seed_of(7, "mask", 3, "row-1") == int(digest[:16], 16) >> 1


def test_seed_never_changes() -> None:
    """Runs made with an earlier version must repeat: this number is part of the interface."""
    assert draws.seed_of(0, "mask", 3, "row") == 913834153936054312


def test_parts_do_not_run_together() -> None:
    parts = [("a", "b"), ("ab",), ("a", "b", ""), (1, 12), (11, 2), (1, 1, 2)]
    assert len({draws.seed_of(*p) for p in parts}) == len(parts)


def test_uniform_is_uniform() -> None:
    values = torch.tensor([draws.uniform(0, "u", i) for i in range(4000)], dtype=torch.float64)
    assert values.min() >= 0 and values.max() < 1
    # Five standard errors of a uniform's mean and of the share under 0.3.
    assert abs(values.mean() - 0.5) < 5 * (1 / 12 / 4000) ** 0.5
    assert abs((values < 0.3).double().mean() - 0.3) < 5 * (0.21 / 4000) ** 0.5


def test_choice_reaches_every_index() -> None:
    assert {draws.choice(5, "c", i) for i in range(200)} == set(range(5))


def test_permutation_is_one_and_depends_on_its_parts_only() -> None:
    first = draws.permutation(20, 3, "order", 0)
    torch.manual_seed(99)
    torch.rand(7)
    assert draws.permutation(20, 3, "order", 0) == first != draws.permutation(20, 3, "order", 1)
    assert sorted(first) == list(range(20))


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    torch.randn(4, generator=draws.generator("g"))
    draws.permutation(9, "p")
    assert torch.equal(before, torch.random.get_rng_state())
