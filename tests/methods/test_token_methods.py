"""wga, satimp, undial, ceu, max_entropy, pdu: whole step losses in loops over full logits, and limits in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch

from erulab.methods.ceu import CEU, log_without_label
from erulab.methods.max_entropy import kl_from_uniform
from erulab.methods.needs import ForgetTokens, Step
from erulab.methods.pdu import PrimalDual, squared_logit_margin
from erulab.methods.retain import Retain
from erulab.methods.seen import Seen
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


def without_label(logits: torch.Tensor) -> torch.Tensor:
    """Returns the distribution of LOGITS' kind renormalised without the labels."""
    p = logits.softmax(-1)
    p[range(6), LABELS] = 0.0
    return p / p.sum(-1, keepdim=True)


def forget_tokens() -> Iterator[tuple[torch.Tensor, torch.Tensor, int, int]]:
    """Yields for each forget token, one row at a time, the policy's and the target's logits that it is predicted from,
    the token, and its index in the answer.
    """
    for row in FORGET:
        ids = torch.tensor([row.ids])
        now, before = POLICY(input_ids=ids).logits[0], TARGET(input_ids=ids).logits[0].detach()
        for place in range(row.start, row.end):
            yield now[place - 1], before[place - 1], row.ids[place], place - row.start


def forget_nll() -> list[torch.Tensor]:
    return [nll for row in FORGET for nll in naive_token_nll(POLICY, row)]


def naive_wga() -> torch.Tensor:
    losses = [-(math.exp(-nll.item()) ** 1.7) * nll for nll in forget_nll()]
    return mean(losses) + token_mean(RETAIN)


def naive_satimp() -> torch.Tensor:
    p = [math.exp(-nll.item()) for nll in forget_nll()]
    losses = [-(q**2.5) * (1 - q) ** 1.5 * nll for q, nll in zip(p, forget_nll(), strict=True)]
    return 0.1 * mean(losses) + token_mean(RETAIN)


def naive_undial() -> torch.Tensor:
    losses = []
    for now, before, token, _ in forget_tokens():
        weights = [math.exp(z - 3.0 * (v == token)) for v, z in enumerate(before.tolist())]
        p = now.exp() / now.exp().sum()
        losses.append(-sum(w / sum(weights) * p[v].log() for v, w in enumerate(weights)))
    return mean(losses)


def naive_ceu() -> torch.Tensor:
    """Cross-entropy to the model's own distribution without the word, less that distribution's entropy."""
    losses = []
    for now, _, token, place in forget_tokens():
        weights = [math.exp(z) * (v != token) for v, z in enumerate(now.tolist())]
        p = now.exp() / now.exp().sum()
        terms = [w / sum(weights) * (p[v].log() - math.log(w / sum(weights))) for v, w in enumerate(weights) if w]
        losses.append(-sum(terms) * (place >= 2))
    return mean(losses)


def naive_max_entropy() -> torch.Tensor:
    losses = [sum((1 / 37 / q).log() / 37 for q in now.exp() / now.exp().sum()) for now, *_ in forget_tokens()]
    return 0.1 * mean(losses) + token_mean(RETAIN)


def naive_pdu() -> torch.Tensor:
    losses = [(max(now) - sum(now) / len(now)) ** 2 for now, *_ in forget_tokens()]
    return mean(losses) + 100 * token_mean(RETAIN)


CASES = {
    "wga": (options_of("wga", beta=1.7), naive_wga),
    "satimp": (options_of("satimp", beta1=2.5, beta2=1.5), naive_satimp),
    "undial": (options_of("undial", beta=3.0), naive_undial),
    "ceu": (options_of("ceu", skip_first=2), naive_ceu),
    "max_entropy": (options_of("max_entropy"), naive_max_entropy),
    "pdu": (options_of("pdu"), naive_pdu),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("micro_batch", [4, 1], ids=["whole", "accumulated"])
def test_step_loss_is_the_papers(name: str, micro_batch: int) -> None:
    options, naive = CASES[name]
    loss, gradient, metrics = step_loss(options, micro_batch=micro_batch)
    expected = naive()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    # Hugging Face computes norms in float32, and pdu's retain term is a hundred times larger than others.
    scale = expected.detach().abs().clamp(min=1).item()
    torch.testing.assert_close(gradient, gradients(expected, POLICY), rtol=1e-4, atol=1e-5 * scale)
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
    got = slope(lambda z: adjusted_distillation(z, LABELS, REFERENCE, beta=500.0), LOGITS)
    torch.testing.assert_close(got, LOGITS.softmax(-1) - without_label(REFERENCE))


def test_ceu_moves_the_word_by_its_probability() -> None:
    """The logit gradient of CE(sg[q], p) is p - q: p_y on the word, and 0 everywhere where p_y is 0."""
    got = slope(lambda z: log_without_label(z, LABELS, None), LOGITS)
    p, q = LOGITS.softmax(-1), without_label(LOGITS)
    torch.testing.assert_close(got, p - q)
    torch.testing.assert_close(got[range(6), LABELS], p[range(6), LABELS])
    published = slope(lambda z: -(q * z.log_softmax(-1)).sum(-1), LOGITS)
    torch.testing.assert_close(got, published)
    forgotten = LOGITS.scatter(1, LABELS[:, None], -1e4)
    assert slope(lambda z: log_without_label(z, LABELS, None), forgotten).abs().max() < 1e-15


def test_ceu_is_finite_at_a_certain_word() -> None:
    """With the word 60 nats ahead 1 - p is 0 in float32; -log(1 - p) is 60 nats less the log of the other words."""
    logits = torch.zeros(1, 11).scatter(1, torch.tensor([[4]]), 60.0)
    loss = log_without_label(logits, torch.tensor([4]), None)
    assert loss.item() == pytest.approx(60 - math.log(10), rel=1e-6)
    got = slope(lambda z: log_without_label(z, torch.tensor([4]), None), logits)
    torch.testing.assert_close(got, torch.full((1, 11), -0.1).scatter(1, torch.tensor([[4]]), 1.0))


@pytest.mark.parametrize(("chosen", "kept"), [("all", [2.0, 0.0]), ("span", [3.0, 4.0])])
def test_ceu_skips_no_token_that_was_chosen(chosen: str, kept: list[float]) -> None:
    """Of answers of two tokens and of one, the first tokens are skipped, unless the tokens are the words to forget."""
    values = {"log_without_label": torch.tensor([1.0, 2.0, 4.0])}
    answers = Seen(torch.tensor([2.0, 1.0]), torch.tensor([0, 0, 1]), values=values)
    ceu = CEU(options_of("ceu", forget_tokens=ForgetTokens(chosen)))
    assert answers.sum_by_row(ceu.token_losses(answers)).tolist() == kept


def test_max_entropy_is_zero_at_uniform_alone() -> None:
    """KL(u || p) = -mean log p - log V, with the logit gradient p - u."""
    flat = torch.full((2, 11), 3.7, dtype=torch.float64)
    torch.testing.assert_close(kl_from_uniform(flat, LABELS, None), torch.zeros(2, dtype=torch.float64))
    got = kl_from_uniform(LOGITS, LABELS, None)
    torch.testing.assert_close(got, -LOGITS.log_softmax(-1).mean(-1) - math.log(11))
    assert (got > 0).all()
    gradient = slope(lambda z: kl_from_uniform(z, LABELS, None), LOGITS)
    torch.testing.assert_close(gradient, LOGITS.softmax(-1) - 1 / 11)


def test_squared_logit_margin() -> None:
    """(max z - mean z)^2: the largest logit is pulled down, all others up, and equal logits are the minimum."""
    z = torch.tensor([[4.0, 0.0, 1.0, -1.0]], dtype=torch.float64)
    assert squared_logit_margin(z, LABELS, None).tolist() == [9.0]
    gradient = slope(lambda z: squared_logit_margin(z, LABELS, None), z)
    assert gradient.tolist() == [[6 * 0.75, -1.5, -1.5, -1.5]]
    assert squared_logit_margin(z * 0 + 2, LABELS, None).tolist() == [0.0]


def test_multiplier_moves_after_the_warmup_and_stays_above_zero() -> None:
    """By hand: fixed for 2 of 5 steps, then 10 + 4 * (0.8 - 0.3) = 12, 12 - 4 * 0.2 = 11.2, then down to 0."""
    method = PrimalDual(options_of("pdu", retain_weight=10.0, epsilon=0.3, dual_step=4.0, warmup=0.4))
    used, logged = [], []
    for number, retain_loss in enumerate([5.0, 5.0, 0.8, 0.1, -7.0, 0.5]):
        step = Step(number, 5)
        used.append(method.weights(step)[1])
        logged.append(method.end_step({"retain_loss": retain_loss}, step)["multiplier"])
    assert used == pytest.approx([10.0, 10.0, 10.0, 12.0, 11.2, 0.0]) and logged == used
    assert method.weights(Step(5, 5))[1] == pytest.approx(0.8), "it rises again as soon as the bound is broken"


def test_multiplier_goes_on_from_a_checkpoint() -> None:
    first, second = (PrimalDual(options_of("pdu", warmup=0.0)) for _ in range(2))
    first.end_step({"retain_loss": 0.1}, Step(0, 9))
    second.load_state_dict(first.state_dict())
    assert first.weights(Step(1, 9)) == second.weights(Step(1, 9)) == (1.0, 99.0)


def test_published_defaults() -> None:
    satimp, pdu = options_of("satimp"), options_of("pdu")
    assert (satimp.beta1, satimp.beta2, satimp.forget_weight) == (5.0, 1.0, 0.1)
    assert (pdu.epsilon, pdu.dual_step, pdu.retain_weight, pdu.warmup) == (0.3, 5.0, 100.0, 0.5)
    assert (options_of("wga").beta, options_of("undial").beta, options_of("ceu").skip_first) == (1.0, 10.0, 1)
    assert options_of("max_entropy").forget_weight == 0.1


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("wga", {"beta": -1.0}),
        ("satimp", {"beta1": -1.0}),
        ("satimp", {"beta2": math.nan}),
        ("undial", {"beta": -1.0}),
        ("ceu", {"skip_first": -1}),
        ("pdu", {"epsilon": -0.1}),
        ("pdu", {"dual_step": -1.0}),
        ("pdu", {"warmup": 1.5}),
        ("pdu", {"retain": Retain.none}),
    ],
)
def test_values_out_of_range_are_named(name: str, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(changes))} must be "):
        options_of(name, **changes)
