"""The elastic reward's identities, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from erulab.methods.preference import preference_loss
from erulab.rewards.elastic import ElasticOptions, ElasticReward, Standardization, elastic_margin, standardize
from erulab.rewards.none import NoReward, NoRewardOptions
from erulab.rewards.reference import ReferenceOptions, RigidReward, rigid_margin
from erulab.rewards.reference_free import ReferenceFreeOptions, ReferenceFreeReward

BETA = 2.5
NLL = torch.tensor([0.4, 2.1, 1.3, 5.0], dtype=torch.float64)
REF = torch.tensor([0.1, 1.5, 0.06, 0.9], dtype=torch.float64)


def alone(values: torch.Tensor) -> torch.Tensor:
    return values


def reward(**changes: Any) -> ElasticReward:
    return ElasticReward(ElasticOptions(**changes))


def loss_and_slope(margin: Any, beta: float = BETA, scale: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows,) losses at NLL and their derivatives; `margin` takes the NLL with its gradient."""
    x = NLL.clone().requires_grad_()
    losses = preference_loss(x, margin(x), beta=beta, scale=2 / beta if scale is None else scale)
    return losses.detach(), torch.autograd.grad(losses.sum(), x)[0]


def with_raw(**changes: Any) -> Any:
    raw = reward(z=Standardization.raw, **changes)
    return lambda x: raw.margin(REF, (x - REF).detach(), alone)


@pytest.mark.parametrize("z", list(Standardization))
def test_alpha_and_lambda_zero_is_simnpo(z: Standardization) -> None:
    simnpo = ReferenceFreeReward(ReferenceFreeOptions(gamma=0.2))
    elastic = reward(z=z, alpha=0.0, gamma=0.2)
    for depth in (NLL - REF, REF - NLL):
        assert torch.equal(elastic.margin(REF, depth, alone), simnpo.margin(REF, depth, alone))
        elastic.end_step(alone)


def test_lambda_one_is_the_rigid_reference() -> None:
    npo = RigidReward(ReferenceOptions())
    assert torch.equal(reward(alpha=0.0, lambda_ref=1.0).margin(REF, NLL - REF, alone), npo.margin(REF, NLL, alone))
    assert torch.equal(npo.margin(REF, NLL, alone), REF)


def test_raw_is_a_convex_mix_of_the_two_rigid_signals() -> None:
    """lambda 0: l - m = (1 - alpha) l + alpha l_ref ... = (1 - alpha)(l) + alpha (l_ref) - gamma."""
    alpha, gamma = 0.3, 0.1
    m = with_raw(alpha=alpha, gamma=gamma)(NLL)
    torch.testing.assert_close(NLL - m, (1 - alpha) * NLL + alpha * REF - gamma)


@pytest.mark.parametrize(("alpha", "lambda_ref", "gamma"), [(0.3, 0.0, 0.0), (-0.5, 0.4, 0.1), (0.8, 1.0, -0.2)])
def test_raw_equals_a_rigid_reward_with_other_constants(alpha: float, lambda_ref: float, gamma: float) -> None:
    """Row weights and gradient are those of beta', lambda', gamma'; so raw matters only where l_ref varies."""
    _, elastic = loss_and_slope(with_raw(alpha=alpha, lambda_ref=lambda_ref, gamma=gamma))
    rigid_beta = (1 - alpha) * BETA
    margin = rigid_margin(REF, gamma=gamma / (1 - alpha), lambda_ref=(lambda_ref - alpha) / (1 - alpha))
    _, rigid = loss_and_slope(lambda x: margin, beta=rigid_beta)
    torch.testing.assert_close(elastic, rigid, rtol=1e-12, atol=0)


def test_raw_without_stop_gradient_scales_the_gradient() -> None:
    alpha = 0.3
    _, stopped = loss_and_slope(with_raw(alpha=alpha))
    _, through = loss_and_slope(lambda x: alpha * (x - REF))
    torch.testing.assert_close(through, (1 - alpha) * stopped, rtol=1e-12, atol=0)


def test_raw_alpha_one_never_saturates_and_is_refused() -> None:
    """Static weights 2 sigma(beta (gamma - l_ref)): gradient ascent, which collapses."""
    gamma = 0.2
    margin = elastic_margin(REF, NLL - REF, gamma=gamma, lambda_ref=0.0, alpha=1.0)
    _, slope = loss_and_slope(lambda x: margin)
    torch.testing.assert_close(slope, -2 * torch.sigmoid(BETA * (gamma - REF)))
    with pytest.raises(ValueError, match="alpha must be < 1 with z=raw"):
        ElasticOptions(z=Standardization.raw, alpha=1.0)


@pytest.mark.parametrize("z", list(Standardization))
@pytest.mark.parametrize("rows", [1, 4])
def test_at_the_reference_any_alpha_is_alpha_zero(z: Standardization, rows: int) -> None:
    """Depth 0 everywhere, also for one row: mean 0, deviation 0, no 0/0; also in later steps of ema."""
    elastic, flat = reward(z=z, alpha=0.7), reward(z=z, alpha=0.0)
    zero = torch.zeros(rows, dtype=torch.float64)
    for _ in range(3):
        assert torch.equal(elastic.margin(REF[:rows], zero, alone), flat.margin(REF[:rows], zero, alone))
        elastic.end_step(alone)


@pytest.mark.parametrize("z", list(Standardization))
@pytest.mark.parametrize("alpha", [0.0, 0.2, -0.4])
def test_finite_for_one_row_and_without_deviation(z: Standardization, alpha: float) -> None:
    elastic = reward(z=z, alpha=alpha)
    for depth in ([3.0], [2.0, 2.0, 2.0], [0.0, 9.0]):
        values = torch.tensor(depth, dtype=torch.float64)
        assert elastic.margin(torch.zeros_like(values), values, alone).isfinite().all()
        elastic.end_step(alone)


def test_batch_standardises_over_all_ranks() -> None:
    """Mean and population deviation of this rank's and the other rank's depths, by hand."""
    depth, other = torch.tensor([1.0, 3.0]).double(), torch.tensor([5.0, 7.0]).double()
    m = reward(z=Standardization.batch, alpha=0.2).margin(
        torch.zeros(2).double(), depth, lambda mine: torch.cat([other, mine])
    )
    torch.testing.assert_close(m, 0.2 * (depth - 4.0) / math.sqrt(5.0))


def test_clipped_and_floored() -> None:
    """|Z| <= z_max; the deviation counts as sd0 at least."""
    depth = torch.tensor([-100.0, 0.1, 100.0], dtype=torch.float64)
    mean, small = torch.tensor(0.0).double(), torch.tensor(0.01).double()
    got = standardize(depth, mean, small, sd0=0.5, z_max=3.0)
    assert got.tolist() == pytest.approx([-3.0, 0.2, 3.0])


def test_default_floor_is_alpha() -> None:
    elastic = reward(z=Standardization.batch, alpha=0.4)
    depth = torch.tensor([1.0, 1.1], dtype=torch.float64)  # deviation 0.05, under the floor
    got = elastic.margin(torch.zeros_like(depth), depth, alone)
    torch.testing.assert_close(got, 0.4 * (depth - 1.05) / 0.4)
    with pytest.raises(ValueError, match="sd0 must be >= alpha"):
        ElasticOptions(alpha=0.4, sd0=0.3)


@pytest.mark.parametrize("z", [Standardization.batch, Standardization.ema])
def test_loss_falls_as_a_row_is_forgotten(z: Standardization) -> None:
    """Slope in l, margin included, is -(1 - alpha / sd) W: never positive because sd >= sd0 >= alpha."""
    elastic = reward(z=z, alpha=0.5, sd0=0.6)
    elastic.load_state_dict({"weight": 1.0, "mean": 0.3, "square": 0.3**2 + 0.1**2})
    for level in (-0.1, 0.2, 0.9):
        rows = torch.tensor([level, level + 0.01], dtype=torch.float64)
        m = [elastic.margin(torch.zeros(1).double(), value[None], alone) for value in rows]
        losses = [preference_loss(x[None], mi, beta=BETA, scale=2 / BETA) for x, mi in zip(rows, m, strict=True)]
        assert losses[1] < losses[0]


def hand_z(steps: list[torch.Tensor], decay: float, depth: torch.Tensor, sd0: float) -> torch.Tensor:
    """Bias-corrected weighted moments of earlier steps: weight decay^k for the step k ago."""
    weights = [decay**k for k in range(len(steps))][::-1]
    mean = sum(w * s.mean() for w, s in zip(weights, steps, strict=True)) / sum(weights)
    square = sum(w * (s**2).mean() for w, s in zip(weights, steps, strict=True)) / sum(weights)
    return ((depth - mean) / max(math.sqrt(square - mean**2), sd0)).clamp(-3, 3)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.0])
def test_ema_uses_earlier_steps_only(decay: float) -> None:
    elastic = reward(alpha=0.2, decay=decay)
    steps = [torch.tensor(d, dtype=torch.float64) for d in ([0.0, 0.1, 0.5], [0.4, 2.0, 0.9], [1.0, 3.0, 2.0])]
    zero = torch.zeros(3, dtype=torch.float64)
    first = elastic.margin(zero, steps[0], alone)
    assert torch.equal(first, zero), "first step: Z = 0"
    elastic.end_step(alone)
    for k in (1, 2):
        # In two micro-batches: neither changes what the other sees.
        parts = [elastic.margin(zero[:1], steps[k][:1], alone), elastic.margin(zero[1:], steps[k][1:], alone)]
        torch.testing.assert_close(torch.cat(parts), 0.2 * hand_z(steps[:k], decay, steps[k], 0.2))
        elastic.end_step(alone)


def test_ema_adds_all_ranks() -> None:
    """Two ranks with two rows each end with the statistics of one rank with four."""
    depth = torch.tensor([0.0, 1.0, 4.0, 9.0], dtype=torch.float64)
    whole, half, other = reward(), reward(), reward()
    for elastic, rows in ((whole, depth), (half, depth[:2]), (other, depth[2:])):
        elastic.margin(torch.zeros_like(rows), rows, alone)
    theirs = torch.tensor(other._pending, dtype=torch.float64)
    half.end_step(lambda mine: mine + theirs)
    whole.end_step(alone)
    assert half.state_dict() == whole.state_dict()


def test_ema_is_restored() -> None:
    depth = NLL - REF
    first = reward()
    for shift in (0.0, 0.7):
        first.margin(REF, depth + shift, alone)
        first.end_step(alone)
    second = reward()
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.margin(REF, depth, alone), first.margin(REF, depth, alone))
    assert second.metrics() == first.metrics()


def test_ema_decay_defaults() -> None:
    assert reward().decay == 0.5 and ElasticOptions().z is Standardization.ema and ElasticOptions().alpha == 0.2


def test_alpha_dpo() -> None:
    """alpha-DPO (arXiv:2410.10148): -log sigma(beta (chosen - rejected) - sg[beta (gamma + alpha M*)]), where M* is the
    standardised gap between policy's and reference's log-ratios: ours for pairs, ema, scale 1, lambda 0."""
    beta, gamma, alpha, mean, deviation = 10.0, 0.3, 0.2, 0.15, 0.8
    generator = torch.Generator().manual_seed(0)
    chosen, rejected, ref_chosen, ref_rejected = -torch.rand(4, 6, generator=generator, dtype=torch.float64)
    gap = (chosen - rejected) - (ref_chosen - ref_rejected)
    logits = (chosen - rejected) - (gamma + alpha * (gap - mean) / deviation)
    expected = torch.stack([-(1 / (1 + (-beta * z).exp())).log() for z in logits])

    elastic = reward(alpha=alpha, gamma=gamma)
    elastic.load_state_dict({"weight": 1.0, "mean": mean, "square": mean**2 + deviation**2})
    u, u_ref = (-rejected) - (-chosen), (-ref_rejected) - (-ref_chosen)
    got = preference_loss(u, elastic.margin(u_ref, u - u_ref, alone), beta=beta, scale=1.0)
    torch.testing.assert_close(got, expected)


def test_margins_carry_no_gradient() -> None:
    for z in Standardization:
        x = NLL.clone().requires_grad_()
        assert not reward(z=z).margin(REF, x - REF, alone).requires_grad


def test_needs_of_each_reward() -> None:
    """A reference that no margin reads would cost a forward over the data for nothing."""
    assert RigidReward(ReferenceOptions()).needs_reference
    assert not ReferenceFreeReward(ReferenceFreeOptions()).needs_reference
    assert [reward(z=z).needs_whole_batch for z in Standardization] == [False, True, False]
    assert NoReward(NoRewardOptions()).options.name == "none"
