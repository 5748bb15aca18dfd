"""Limits and identities of the preference-style losses, on rows of plain numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erulab.methods.dpo import DPO, DPOOptions
from erulab.methods.eru import ERUOptions
from erulab.methods.ga import GAOptions, GradientAscent
from erulab.methods.needs import Pairs, Step
from erulab.methods.npo import NPO, NPOOptions
from erulab.methods.preference import preference_loss
from erulab.methods.seen import ForgetRows, RowNLL
from erulab.methods.simnpo import SimNPO, SimNPOOptions
from erulab.rewards.reference import ReferenceOptions, RigidReward, rigid_margin
from tests.samples.tiny import LOG2

TOKENS = torch.tensor([3.0, 7.0, 4.0], dtype=torch.float64)
NOW = torch.tensor([6.0, 9.5, 2.0], dtype=torch.float64)
REF = torch.tensor([1.5, 8.0, 3.0], dtype=torch.float64)


def margin_of(lambda_ref: float, gamma: float = 0.0) -> Any:
    reward = RigidReward(ReferenceOptions(lambda_ref=lambda_ref, gamma=gamma))
    return lambda x_ref, depth: reward.margin(x_ref, depth, lambda values: values)


def losses(method: Any, margin: Any, total: torch.Tensor, ref: torch.Tensor | None = REF) -> torch.Tensor:
    rows = ForgetRows(RowNLL(total, TOKENS), None if ref is None else RowNLL(ref, TOKENS))
    return method.losses(rows, margin, Step(0, 1))[0]


def slope(method: Any, margin: Any, total: torch.Tensor, ref: torch.Tensor | None = REF) -> torch.Tensor:
    """(rows,) derivative of the summed losses by each row's sequence NLL."""
    total = total.clone().requires_grad_()
    return torch.autograd.grad(losses(method, margin, total, ref).sum(), total)[0]


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 5.0])
def test_npo_starts_at_2_log_2_over_beta_with_the_gradient_of_ga(beta: float) -> None:
    """At s = s_ref: softplus(0) = log 2 and the row weight 2 sigma(0) is 1, whatever beta."""
    npo, ga = NPO(NPOOptions(beta=beta)), GradientAscent(GAOptions())
    torch.testing.assert_close(losses(npo, margin_of(1.0), REF), torch.full_like(REF, 2 * LOG2 / beta))
    torch.testing.assert_close(slope(npo, margin_of(1.0), REF), slope(ga, None, REF))
    torch.testing.assert_close(slope(npo, margin_of(1.0), REF), -torch.ones_like(REF))


def test_npo_with_small_beta_is_ga_anywhere() -> None:
    """2/beta softplus(-beta d) = 2 log 2 / beta - d + O(beta)."""
    beta = 1e-7
    npo = NPO(NPOOptions(beta=beta))
    torch.testing.assert_close(slope(npo, margin_of(1.0), NOW), -torch.ones_like(NOW), rtol=0, atol=1e-6)
    torch.testing.assert_close(losses(npo, margin_of(1.0), NOW) - 2 * LOG2 / beta, -(NOW - REF), rtol=0, atol=1e-6)


def test_row_weight_of_npo_is_2_sigma() -> None:
    beta = 0.4
    got = slope(NPO(NPOOptions(beta=beta)), margin_of(1.0), NOW)
    torch.testing.assert_close(got, -2 / (1 + (beta * (NOW - REF)).exp()))


def test_simnpo_with_small_beta_is_ga_per_row() -> None:
    simnpo = SimNPO(SimNPOOptions(beta=1e-7))
    torch.testing.assert_close(slope(simnpo, margin_of(0.0), NOW), -1 / TOKENS, rtol=0, atol=1e-6)


def test_simnpo_needs_no_reference() -> None:
    simnpo = SimNPO(SimNPOOptions())
    torch.testing.assert_close(losses(simnpo, margin_of(0.0), NOW, None), losses(simnpo, margin_of(0.0), NOW, REF))


def test_dpo_without_a_paired_answer_is_npo() -> None:
    dpo, npo = DPO(DPOOptions(beta=0.3)), NPO(NPOOptions(beta=0.3))
    assert torch.equal(losses(dpo, margin_of(1.0), NOW), losses(npo, margin_of(1.0), NOW))


def test_dpo_starts_at_2_log_2_over_beta_and_pulls_both_answers() -> None:
    total, other = REF.clone().requires_grad_(), TOKENS.clone().requires_grad_()
    rows = ForgetRows(RowNLL(total, TOKENS), RowNLL(REF, TOKENS), RowNLL(other, REF), RowNLL(TOKENS, REF))
    got, metrics = DPO(DPOOptions(beta=0.1)).losses(rows, margin_of(1.0), Step(0, 1))
    torch.testing.assert_close(got, torch.full_like(REF, 20 * LOG2))
    down, up = torch.autograd.grad(got.sum(), (total, other))
    torch.testing.assert_close(down, -torch.ones_like(REF))
    torch.testing.assert_close(up, torch.ones_like(REF))
    torch.testing.assert_close(metrics["paired_nll"], TOKENS / REF)


def test_length_normalize_belongs_to_the_method() -> None:
    """Per-token NPO on rows of T tokens is NPO on sums with beta / T and T times smaller losses."""
    per_token = NPO(NPOOptions(beta=2.0, length_normalize=True))
    got = losses(per_token, margin_of(1.0), NOW)
    for i, count in enumerate(TOKENS.tolist()):
        sums = losses(NPO(NPOOptions(beta=2.0 / count)), margin_of(1.0), NOW)
        torch.testing.assert_close(got[i], sums[i] / count)
    assert [NPOOptions().length_normalize, DPOOptions().length_normalize] == [False, False]
    assert [SimNPOOptions().length_normalize, ERUOptions().length_normalize] == [True, True]


def test_published_defaults() -> None:
    assert (NPOOptions().beta, DPOOptions().beta, SimNPOOptions().beta, ERUOptions().beta) == (0.1, 0.1, 2.5, 2.5)
    assert all((o.forget_weight, o.retain_weight) == (1, 1) for o in (NPOOptions(), DPOOptions(), SimNPOOptions()))
    assert GAOptions().retain.name == "none"


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_loss_slope_is_the_logged_weight(scale: float) -> None:
    """dL/dx = -scale * beta * sigma(-beta (x - m)) = -W for scale 2/beta."""
    beta, x, m = 0.25, NOW.clone().requires_grad_(), torch.tensor([1.0, 12.0, 2.0], dtype=torch.float64)
    (got,) = torch.autograd.grad(preference_loss(x, m, beta=beta, scale=scale).sum(), x)
    torch.testing.assert_close(got, -scale * beta / (1 + (beta * (NOW - m)).exp()))


def test_loss_is_finite_for_large_nll() -> None:
    """log(1 + exp(z)), computed as written, overflows at z = 89 in float32."""
    x = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = preference_loss(x, torch.zeros(2), beta=2.5, scale=0.8)
    (got,) = torch.autograd.grad(loss.sum(), x)
    torch.testing.assert_close(loss.detach(), torch.tensor([2e4, 0.0]))
    torch.testing.assert_close(got, torch.tensor([-2.0, 0.0]))


def test_logged_quantities() -> None:
    """r = -beta (x - m), W = 2 sigma(r); depth is in nats per token also where the loss takes sums."""
    rows = ForgetRows(RowNLL(NOW, TOKENS), RowNLL(REF, TOKENS))
    _, metrics = NPO(NPOOptions(beta=0.4)).losses(rows, margin_of(1.0), Step(0, 1))
    torch.testing.assert_close(metrics["implicit_reward"], -0.4 * (NOW - REF))
    torch.testing.assert_close(metrics["weight"], 2 * torch.sigmoid(-0.4 * (NOW - REF)))
    torch.testing.assert_close(metrics["depth"], (NOW - REF) / TOKENS)
    torch.testing.assert_close(metrics["nll"], NOW / TOKENS)


def test_margin_carries_no_gradient() -> None:
    ref = REF.clone().requires_grad_()
    assert not rigid_margin(ref, gamma=0.1, lambda_ref=1.0).requires_grad


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        (NPOOptions, {"beta": 0.0}),
        (NPOOptions, {"beta": float("nan")}),
        (SimNPOOptions, {"scale": -1.0}),
        (GAOptions, {"forget_weight": -1.0}),
        (DPOOptions, {"pairs": Pairs.none}),
    ],
)
def test_values_out_of_range_are_named(options: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(changes))} must be "):
        options(**changes)
