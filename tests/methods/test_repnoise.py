"""repnoise: the distance to noise, the ascent at every layer, and its whole step loss against loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from erulab.methods.repnoise import (
    FACTORS,
    RepNoise,
    RepNoiseOptions,
    ascent_loss,
    row_noise,
    squared_mmd,
)
from erulab.methods.retain import Retain
from tests.methods.test_step_losses import POLICY, step_loss, token_mean
from tests.models.test_forwards import lens_alone, states_alone
from tests.samples.tiny import FORGET, RETAIN, gradients, naive_nll


def sample(n: int, width: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return shift + torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_mmd(x: torch.Tensor, y: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """Gretton et al. eq. 4, pair by pair."""

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.stack([(-((a - b) ** 2).sum() / (factor * bandwidth)).exp() for factor in FACTORS]).sum()

    pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if i != j]
    terms = [kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(y[i], x[j]) for i, j in pairs]
    return torch.stack(terms).sum() / len(pairs)


def median_distance(both: torch.Tensor) -> float:
    """The lower median of the squared distances between two vectors."""
    found = sorted(float(((a - b) ** 2).sum()) for i, a in enumerate(both) for b in both[:i])
    return found[(len(found) - 1) // 2]


def test_equal_samples_have_distance_0() -> None:
    x = sample(6, 4, 0)
    assert float(squared_mmd(x, x)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("n", [2, 7])
def test_distance_is_that_of_all_pairs(n: int) -> None:
    x, y = sample(n, 4, 0, shift=0.5).requires_grad_(), sample(n, 4, 1)
    bandwidth = median_distance(torch.cat([x.detach(), y]))
    found, expected = squared_mmd(x, y), naive_mmd(x, y, bandwidth)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(expected, x))


def test_estimate_is_unbiased() -> None:
    """Over 4000 pairs of samples of 3: its mean is that of large samples, and 0 within one distribution."""
    b = torch.tensor(4.0, dtype=torch.float64)
    for shift in (0.0, 1.0):
        x, y = sample(12000, 2, 0, shift).split(3), sample(12000, 2, 1).split(3)
        found = torch.stack([squared_mmd(one, other, b) for one, other in zip(x, y, strict=True)])
        error = float(found.std()) / math.sqrt(len(found))
        large = float(squared_mmd(sample(1500, 2, 2, shift), sample(1500, 2, 3), b)) if shift else 0.0
        assert abs(float(found.mean()) - large) < 4 * error
        assert error < 0.03
        assert shift == 0 or large > 10 * error


def test_descent_moves_states_towards_noise() -> None:
    x, y = sample(8, 4, 0, shift=2.0), sample(8, 4, 1)
    before = float(squared_mmd(x, y))
    for _ in range(200):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(squared_mmd(x, y), x)
        x = (x - 2 * gradient).detach()
    assert float(squared_mmd(x, y)) < 0.2 * before


def test_a_row_of_one_token_has_no_distance_and_a_gradient_of_0() -> None:
    x = sample(1, 4, 0).requires_grad_()
    found = squared_mmd(x, sample(1, 4, 1))
    (gradient,) = torch.autograd.grad(found, x)
    assert float(found.detach()) == 0.0 and torch.equal(gradient, torch.zeros_like(x))


def test_equal_tokens_stay_finite() -> None:
    """Text that repeats one token has distances of 0 and a median of 0."""
    x = torch.ones(4, 3).requires_grad_()
    found = squared_mmd(x, torch.ones(4, 3))
    (gradient,) = torch.autograd.grad(found, x)
    assert bool(found.isfinite()) and bool(gradient.isfinite().all())


def test_ascent_slows_down() -> None:
    nll = torch.tensor([0.0, 1.0, 9.0], dtype=torch.float64, requires_grad=True)
    losses = ascent_loss(nll)
    (gradient,) = torch.autograd.grad(losses.sum(), nll)
    torch.testing.assert_close(losses.detach(), torch.tensor([0.0, -math.log(2), -math.log(10)], dtype=torch.float64))
    torch.testing.assert_close(gradient, torch.tensor([-1.0, -0.5, -0.1], dtype=torch.float64))


def test_noise_is_drawn_by_step_and_row_id() -> None:
    first = row_noise(["a", "b"], [2, 3], 4, seed=0, step=1)
    assert [tuple(one.shape) for one in first] == [(2, 4), (3, 4)]
    assert torch.equal(first[1], row_noise(["b"], [3], 4, seed=0, step=1)[0])
    for other in (row_noise(["a"], [2], 4, seed=0, step=2), row_noise(["a"], [2], 4, seed=1, step=1)):
        assert not torch.equal(first[0], other[0])


def naive_repnoise(layers: tuple[int, ...], alpha: float, beta: float) -> torch.Tensor:
    """One row at a time, with states and lens of each row run alone."""
    losses = []
    for row in FORGET:
        noise = row_noise([row.row_id], [len(row.ids)], 16, seed=0, step=0)[0].double()
        distances, nll = [], [naive_nll(POLICY, row) / row.tokens]
        for layer in layers:
            states = states_alone(POLICY, [row], layer)
            distances.append(naive_mmd(states, noise, median_distance(torch.cat([states.detach(), noise]))))
            nll.append(lens_alone(POLICY, [row], layer).mean())
        ascent = (1 + torch.stack(nll).mean()).log()
        losses.append(beta * torch.stack(distances).mean() - alpha * ascent)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("micro_batch", [4, 1], ids=["whole", "accumulated"])
@pytest.mark.parametrize(
    ("layers", "alpha", "beta", "retain"), [((1, 2), 0.5, 2.0, Retain.nll), ((2,), 0.3, 0.0, Retain.none)]
)
def test_step_loss_is_the_papers(
    layers: tuple[int, ...], alpha: float, beta: float, retain: Retain, micro_batch: int
) -> None:
    options = RepNoiseOptions(layers=list(layers), alpha=alpha, beta=beta, retain=retain, retain_weight=1.5)
    loss, gradient, _ = step_loss(options, None, micro_batch)
    expected = naive_repnoise(layers, alpha, beta)
    if retain is Retain.nll:
        expected = expected + 1.5 * token_mean(RETAIN)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient, gradients(expected, POLICY), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("depth", "layers"), [(32, (8, 16, 24)), (4, (1, 2, 3)), (2, (1, 2)), (1, (1,))])
def test_a_quarter_a_half_and_three_quarters_by_default(depth: int, layers: tuple[int, ...]) -> None:
    assert RepNoise(RepNoiseOptions()).layers(depth) == layers


@pytest.mark.parametrize("changes", [{"alpha": -0.1}, {"beta": float("nan")}])
def test_values_out_of_range_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(changes))} must be "):
        RepNoiseOptions(**changes)
