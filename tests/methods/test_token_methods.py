"""The methods that train on single tokens: whole step losses in loops over full logits, and limits in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch

from erulab.methods.undial import adjusted_distillation
from erulab.methods.wga import weighted_ascent_loss
from tests.methods.test_step_losses import POLICY, TARGET, mean, options_of, step_loss, token_mean
from tests.samples.tiny import FORGET, RETAIN, gradients, naive_token_nll

GENERATOR = torch.Generator().manual_seed(3)
LOGITS = torch.randn(6, 11, generator=GENERATOR, dtype=torch.float64)
REFERENCE = torch.randn(6, 11, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.tensor([0, 10, 4, 4, 7, 2])
NLL = torch.tensor([1e-9, 0.01, 0.3, 1.0, 4.0, 30.0], dtype=torch.float64)


def slope(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    """Returns the gradient of the summed losses at a tensor, in its shape."""
    at = at.clone().requires_grad_()
    return torch.autograd.grad(function(at).sum(), at)[0]


def forget_tokens() -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Yields policy's and target's logits that a forget token is predicted from, and the token, one row at a time."""
    for row in FORGET:
        ids = torch.tensor([row.ids])
        now, before = POLICY(input_ids=ids).logits[0], TARGET(input_ids=ids).logits[0].detach()
        for place in range(row.start, row.end):
            yield now[place - 1], before[place - 1], row.ids[place]


def naive_wga() -> torch.Tensor:
    losses = [-(math.exp(-nll.item()) ** 1.7) * nll for nll in forget_nll()]
    return mean(losses) + token_mean(RETAIN)


def forget_nll() -> list[torch.Tensor]:
    return [nll for row in FORGET for nll in naive_token_nll(POLICY, row)]


def naive_satimp() -> torch.Tensor:
    p = [math.exp(-nll.item()) for nll in forget_nll()]
    losses = [-(q**2.5) * (1 - q) ** 1.5 * nll for q, nll in zip(p, forget_nll(), strict=True)]
    return 0.1 * mean(losses) + token_mean(RETAIN)


def naive_undial() -> torch.Tensor:
    losses = []
    for now, before, token in forget_tokens():
        weights = [math.exp(z - 3.0 * (v == token)) for v, z in enumerate(before.tolist())]
        p = now.exp() / now.exp().sum()
        losses.append(-sum(w / sum(weights) * p[v].log() for v, w in enumerate(weights)))
    return mean(losses)


CASES = {
    "wga": (options_of("wga", beta=1.7), naive_wga),
    "satimp": (options_of("satimp", beta1=2.5, beta2=1.5), naive_satimp),
    "undial": (options_of("undial", beta=3.0), naive_undial),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("micro_batch", [4, 1], ids=["whole", "accumulated"])
def test_step_loss_is_the_papers(name: str, micro_batch: int) -> None:
    options, naive = CASES[name]
    loss, gradient, metrics = step_loss(options, micro_batch=micro_batch)
    expected = naive()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient, gradients(expected, POLICY), rtol=1e-4, atol=1e-5)
    means = [torch.stack(naive_token_nll(POLICY, row)).mean().item() for row in FORGET]
    assert metrics["method/nll"] == pytest.approx(sum(means) / len(means), rel=1e-5)


@pytest.mark.parametrize("options", [options_of("wga", beta=0.0), options_of("satimp", beta1=0.0, beta2=0.0)])
def test_weighted_ascent_without_powers_is_gd(options: object) -> None:
    first, second = step_loss(options, forget_weight=1.0), step_loss(options_of("gd"))
    assert first[0] == pytest.approx(second[0], rel=1e-12)
    torch.testing.assert_close(first[1], second[1], rtol=1e-10, atol=1e-12)


def test_weight_of_weighted_ascent_carries_no_gradient() -> None:
    """d loss / d NLL = -p^beta1 (1 - p)^beta2, not the derivative of the whole product."""
    p = (-NLL).exp()
    got = slope(lambda nll: weighted_ascent_loss(nll, beta1=1.5, beta2=0.0), NLL)
    torch.testing.assert_close(got, -(p**1.5))
    got = slope(lambda nll: weighted_ascent_loss(nll, beta1=5.0, beta2=1.0), NLL)
    torch.testing.assert_close(got, -(p**5) * -torch.expm1(-NLL))


def test_forgotten_and_certain_tokens_are_left_alone() -> None:
    """The weight p^b1 (1 - p)^b2 is 0 at p = 0 and p = 1, and largest at b1 / (b1 + b2)."""
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    weights = -slope(lambda nll: weighted_ascent_loss(nll, beta1=5.0, beta2=1.0), -p.log())
    assert p[weights.argmax()].item() == pytest.approx(5 / 6, abs=1e-3)
    ends = weighted_ascent_loss(torch.tensor([0.0, 1e4]), beta1=5.0, beta2=1.0)
    assert ends.tolist() == [0.0, 0.0]
    # In float32, 1 - exp(-1e-9) is 0: the weight must not be.
    assert weighted_ascent_loss(torch.tensor([1e-9]), beta1=5.0, beta2=1.0).item() == pytest.approx(-1e-18, rel=1e-5)


def test_weighted_ascent_is_bounded_below() -> None:
    """-p^b NLL has its minimum -1 / (e b) at NLL = 1 / b."""
    nll = torch.linspace(0, 20, 20001, dtype=torch.float64)
    losses = weighted_ascent_loss(nll, beta1=2.0, beta2=0.0)
    assert losses.min().item() == pytest.approx(-1 / (2 * math.e), rel=1e-9)


def test_undial_without_adjustment_starts_at_a_stationary_point() -> None:
    got = slope(lambda z: adjusted_distillation(z, LABELS, REFERENCE, beta=0.0), REFERENCE)
    torch.testing.assert_close(got, torch.zeros_like(got), rtol=0, atol=1e-15)


def test_undial_is_bounded_below_by_the_entropy_of_its_aim() -> None:
    """At z = z_ref - beta onehot(y) the loss is that entropy and its gradient 0; elsewhere it is larger."""
    aim = REFERENCE.clone()
    aim[range(6), LABELS] -= 10.0
    entropy = -(aim.softmax(-1) * aim.log_softmax(-1)).sum(-1)
    at_aim = adjusted_distillation(aim, LABELS, REFERENCE, beta=10.0)
    torch.testing.assert_close(at_aim, entropy)
    got = slope(lambda z: adjusted_distillation(z, LABELS, REFERENCE, beta=10.0), aim)
    torch.testing.assert_close(got, torch.zeros_like(got), rtol=0, atol=1e-15)
    assert (adjusted_distillation(LOGITS, LABELS, REFERENCE, beta=10.0) > entropy + 0.01).all()


def test_undial_with_a_large_beta_aims_at_the_target_without_the_word() -> None:
    """The logit gradient is p - q, with q the target's distribution renormalised without y."""
    q = REFERENCE.softmax(-1)
    q[range(6), LABELS] = 0.0
    q /= q.sum(-1, keepdim=True)
    got = slope(lambda z: adjusted_distillation(z, LABELS, REFERENCE, beta=500.0), LOGITS)
    torch.testing.assert_close(got, LOGITS.softmax(-1) - q)


def test_published_defaults() -> None:
    satimp, wga, undial = options_of("satimp"), options_of("wga"), options_of("undial")
    assert (satimp.beta1, satimp.beta2, satimp.forget_weight, wga.beta, undial.beta) == (5.0, 1.0, 0.1, 1.0, 10.0)


@pytest.mark.parametrize(
    ("name", "option"), [("wga", "beta"), ("satimp", "beta1"), ("satimp", "beta2"), ("undial", "beta")]
)
def test_values_out_of_range_are_named(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option} must be >= 0"):
        options_of(name, **{option: -1.0})
