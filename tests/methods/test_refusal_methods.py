"""jensun, flat, idk_ap: whole step losses in loops over full logits, and limits in float64."""

from __future__ import annotations

import math

import pytest
import torch

from erulab.methods.flat import total_variation_loss
from erulab.methods.idk_ap import answer_preservation
from erulab.methods.jensun import js_to_word
from erulab.methods.retain import Retain, js_to_reference
from tests.methods.test_step_losses import POLICY, TARGET, mean, options_of, step_loss, token_mean
from tests.methods.test_token_methods import LABELS, LOGITS, REFERENCE, slope
from tests.samples.tiny import FORGET, LOG2, PAIRED, RETAIN, RETAIN_PAIRED, gradients, naive_nll, naive_token_nll


def naive_js(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Returns (KL(p || m) + KL(q || m)) / 2 of two distributions by its definition; 0 log 0 is 0."""
    m = (p + q) / 2
    return sum((one[one > 0] * (one / m)[one > 0].log()).sum() for one in (p, q)) / 2


def naive_jensun() -> torch.Tensor:
    forget, retain = [], []
    for row in PAIRED:
        p = POLICY(input_ids=torch.tensor([row.ids])).logits[0].softmax(-1)
        for place in range(row.start, row.end):
            word = torch.zeros_like(p[0])
            word[row.ids[place]] = 1.0
            forget.append(naive_js(p[place - 1], word))
    for row in RETAIN:
        now, before = (m(input_ids=torch.tensor([row.ids])).logits[0].softmax(-1) for m in (POLICY, TARGET))
        retain += [naive_js(now[t - 1], before[t - 1].detach()) for t in range(row.start, row.end)]
    return mean(forget) + mean(retain)


def naive_flat() -> torch.Tensor:
    def probability(row: object) -> torch.Tensor:
        return mean((-nll).exp() for nll in naive_token_nll(POLICY, row))

    return mean(
        -torch.tanh(probability(refusal)) / 2 + torch.tanh(probability(row)) / 2
        for row, refusal in zip(FORGET, PAIRED, strict=True)
    )


def naive_idk_ap() -> torch.Tensor:
    """Preference of a retain row's answer over a refusal: -(1/beta) log sigmoid(beta log p(answer) / p(refusal))."""
    terms = []
    for row, refusal in zip(RETAIN, RETAIN_PAIRED, strict=True):
        ratio = (naive_nll(POLICY, refusal) - naive_nll(POLICY, row)).exp()
        terms.append(-torch.sigmoid(0.1 * ratio.log()).log() / 0.1)
    return token_mean(PAIRED) + mean(terms)


CASES = {"jensun": naive_jensun, "flat": naive_flat, "idk_ap": naive_idk_ap}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("micro_batch", [4, 1], ids=["whole", "accumulated"])
def test_step_loss_is_the_papers(name: str, micro_batch: int) -> None:
    loss, gradient, _ = step_loss(options_of(name), micro_batch=micro_batch)
    expected = CASES[name]()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient, gradients(expected, POLICY), rtol=1e-4, atol=1e-5)


def test_metrics_name_both_answers() -> None:
    """A refusal that rises hides an answer that does not fall: flat logs both."""
    _, _, metrics = step_loss(options_of("flat"))
    for name, rows in (("nll", FORGET), ("paired_nll", PAIRED)):
        expected = mean(naive_nll(POLICY, row) / row.tokens for row in rows)
        assert metrics[f"method/{name}"] == pytest.approx(expected.item(), rel=1e-5)
    _, _, metrics = step_loss(options_of("jensun"))
    expected = mean(naive_nll(POLICY, row) / row.tokens for row in PAIRED)
    assert metrics["method/refusal_nll"] == pytest.approx(expected.item(), rel=1e-5)


def test_idk_ap_with_a_further_retain_term_adds_it() -> None:
    """method.retain=nll is one more term beside answer preservation, with the same weight."""
    alone, both = step_loss(options_of("idk_ap")), step_loss(options_of("idk_ap", retain=Retain.nll))
    assert both[0] == pytest.approx(alone[0] + token_mean(RETAIN).item(), rel=1e-5)
    assert both[2]["retain_loss/preservation"] == pytest.approx(alone[2]["retain_loss"], rel=1e-9)
    assert both[2]["retain_loss/nll"] == pytest.approx(token_mean(RETAIN).item(), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_js_to_a_word_is_the_divergence_by_its_definition(seed: int) -> None:
    logits = 3 * torch.randn(6, 11, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    nll = torch.nn.functional.cross_entropy(logits, LABELS, reduction="none")
    words = torch.nn.functional.one_hot(LABELS, 11).double()
    expected = torch.stack([naive_js(p, word) for p, word in zip(logits.softmax(-1), words, strict=True)])
    torch.testing.assert_close(js_to_word(nll), expected)


def test_js_to_a_word_lies_in_0_to_log_2() -> None:
    nll = torch.cat([torch.zeros(1), torch.logspace(-12, 3, 500)])
    got = js_to_word(nll)
    assert got[0] == 0 and (got.diff() >= 0).all() and got.min() >= 0 and got.max() <= LOG2 * (1 + 1e-6)
    assert js_to_word(torch.tensor([1e4])).item() == pytest.approx(LOG2)
    # Near certainty JS = (1 - p) log(2) / 2, which differences of numbers near 1 would round away in float32.
    assert js_to_word(torch.tensor([1e-9])).item() == pytest.approx(1e-9 * LOG2 / 2, rel=1e-5)


def test_js_to_a_certain_word_has_no_gradient() -> None:
    """At p = onehot(y) the gradient is 0 in the logits; a word that is never said has none either."""
    for ahead in (40.0, -40.0):
        logits = torch.zeros(1, 11, dtype=torch.float64).scatter(1, torch.tensor([[4]]), ahead)
        got = slope(lambda z: js_to_word(torch.nn.functional.cross_entropy(z, torch.tensor([4]))), logits)
        assert got.abs().max() < 1e-14


def test_js_to_the_reference_is_symmetric_bounded_and_flat_at_equality() -> None:
    one, other = js_to_reference(LOGITS, LABELS, REFERENCE), js_to_reference(REFERENCE, LABELS, LOGITS)
    torch.testing.assert_close(one, other)
    pairs = zip(LOGITS.softmax(-1), REFERENCE.softmax(-1), strict=True)
    torch.testing.assert_close(one, torch.stack([naive_js(p, q) for p, q in pairs]))
    assert (one > 0).all() and (one < LOG2).all()
    words = 90 * torch.eye(6, 11, dtype=torch.float64)
    apart = js_to_reference(words, LABELS, words.roll(1, 1))
    torch.testing.assert_close(apart, torch.full((6,), LOG2, dtype=torch.float64))
    torch.testing.assert_close(js_to_reference(LOGITS, LABELS, LOGITS), torch.zeros(6, dtype=torch.float64))
    at_equality = slope(lambda z: js_to_reference(z, LABELS, LOGITS), LOGITS)
    torch.testing.assert_close(at_equality, torch.zeros_like(at_equality), rtol=0, atol=1e-16)


def test_flat_is_bounded_by_half_tanh_1() -> None:
    ends = total_variation_loss(torch.tensor([0.0, 1.0, 0.5]), torch.tensor([1.0, 0.0, 0.5]))
    torch.testing.assert_close(ends, torch.tensor([-math.tanh(1) / 2, math.tanh(1) / 2, 0.0]))
    at = torch.tensor([0.3], dtype=torch.float64)
    down = slope(lambda p: total_variation_loss(p, at), at)
    up = slope(lambda p: total_variation_loss(at, p), at)
    torch.testing.assert_close(down, (1 - at.tanh() ** 2) / 2)
    torch.testing.assert_close(up, -down)


@pytest.mark.parametrize("beta", [0.05, 0.1, 2.0])
def test_answer_preservation_starts_at_log_2_over_beta(beta: float) -> None:
    """At equal sums the loss is log 2 / beta with slope 1/2 whatever beta; a preferred answer costs nothing."""
    nll = torch.tensor([3.0, 8.0], dtype=torch.float64)
    torch.testing.assert_close(answer_preservation(nll, nll, beta=beta), torch.full_like(nll, LOG2 / beta))
    torch.testing.assert_close(slope(lambda s: answer_preservation(s, nll, beta=beta), nll), torch.full_like(nll, 0.5))
    assert answer_preservation(nll, nll + 1e5, beta=beta).max() == 0


def test_published_defaults() -> None:
    assert options_of("idk_ap").beta == 0.1 and options_of("jensun").retain is Retain.js
    assert options_of("flat").retain is options_of("idk_ap").retain is Retain.none


def test_values_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="^beta must be > 0"):
        options_of("idk_ap", beta=0.0)
