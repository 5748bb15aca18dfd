"""circuit_breaker: its limits, its schedule, and its whole step loss against a computation in loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from erulab.methods.circuit_breaker import (
    CircuitBreaker,
    CircuitBreakerOptions,
    distance,
    rerouting_loss,
    row_directions,
)
from erulab.methods.needs import ForgetTokens, Step
from erulab.methods.retain import Retain
from erulab.methods.seen import ForgetRows, Seen
from tests.methods.test_step_losses import POLICY, TARGET, step_loss
from tests.samples.tiny import FORGET, RETAIN, gradients, moved

WIDTH = 16


def random_states(tokens: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(tokens, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rerouting_is_the_cosine_down_to_0() -> None:
    states = random_states()
    torch.testing.assert_close(rerouting_loss(3 * states, states), torch.ones(5, dtype=torch.float64))
    zero = torch.zeros(5, dtype=torch.float64)
    torch.testing.assert_close(rerouting_loss(-states, states), zero)
    turned = torch.stack([-states[:, 1], states[:, 0]], 1)  # by a right angle, in the plane of the first two axes
    torch.testing.assert_close(rerouting_loss(turned, states[:, :2]), zero)


def test_the_start_is_stationary_without_jitter_and_not_with_it() -> None:
    reference = random_states()
    for jitter, moves in ((0.0, False), (0.1, True)):
        states = reference.clone().requires_grad_()
        seen = Seen(
            torch.tensor([1]), torch.tensor([0]), states={1: states}, state_row=torch.zeros(5, dtype=torch.int64)
        )
        rows = ForgetRows(seen, reference_states={1: reference}, ids=["a"])
        losses, metrics = CircuitBreaker(CircuitBreakerOptions(jitter=jitter)).losses(rows, None, Step(0, 10))
        (gradient,) = torch.autograd.grad(losses.sum(), states)
        assert math.sqrt(1 - jitter**2) * 5 - 1e-9 <= float(losses.detach()) <= 5 + 1e-9
        assert bool(gradient.abs().max() > 1e-3) is moves and bool(gradient.abs().max() < 1e-12) is not moves
        assert metrics["cosine"].tolist() == pytest.approx([1.0])


def test_distance_and_its_gradient_of_length_1() -> None:
    reference = random_states()
    step = torch.nn.functional.normalize(random_states(seed=1), dim=-1)
    for size in (1e-6, 1.0, 100.0):
        states = (reference + size * step).requires_grad_()
        found = distance(states, reference)
        torch.testing.assert_close(found, torch.full((5,), size, dtype=torch.float64), rtol=1e-8, atol=1e-12)
        (gradient,) = torch.autograd.grad(found.sum(), states)
        torch.testing.assert_close(gradient, step, rtol=1e-6, atol=1e-6)
    states = reference.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(distance(states, reference).sum(), states)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_directions_are_drawn_by_row_id() -> None:
    first = row_directions(["a", "b"], WIDTH, 0, 1)
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(2))
    assert torch.equal(first.flip(0), row_directions(["b", "a"], WIDTH, 0, 1))
    for other in (row_directions(["a", "b"], WIDTH, 1, 1), row_directions(["a", "b"], WIDTH, 0, 2)):
        assert not torch.equal(first, other)


def test_turning_comes_first_and_keeping_later() -> None:
    method = CircuitBreaker(CircuitBreakerOptions(forget_weight=10.0, retain_weight=4.0))
    found = [method.weights(Step(number, 5)) for number in range(5)]
    assert found == [(10.0, 0.0), (8.75, 0.5), (7.5, 1.0), (6.25, 1.5), (5.0, 2.0)]


@pytest.mark.parametrize(("depth", "layers"), [(32, (10, 21)), (4, (1, 2)), (3, (1, 2)), (1, (1,))])
def test_a_third_and_two_thirds_by_default(depth: int, layers: tuple[int, ...]) -> None:
    assert CircuitBreaker(CircuitBreakerOptions()).layers(depth) == layers


def test_trains_blocks_below_the_deepest_layer() -> None:
    method = CircuitBreaker(CircuitBreakerOptions(layers=[2, 1]))
    name = "base_model.model.model.layers.{}.self_attn.q_proj.lora_A.default.weight"
    assert [method.trains(name.format(block), 4) for block in range(4)] == [True, True, False, False]
    assert not method.trains("model.embed_tokens.weight", 4) and not method.trains("model.norm.weight", 4)


@pytest.mark.parametrize("layers", [[0], [5], [1, 9]])
def test_a_layer_beyond_the_depth_is_named(layers: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^layers must be a list of 1 to 4 for a model of 4 blocks, got \["):
        CircuitBreaker(CircuitBreakerOptions(layers=layers)).layers(4)


@pytest.mark.parametrize(
    "changes", [{"jitter": -0.1}, {"jitter": 1.5}, {"forget_weight": -1.0}, {"forget_tokens": ForgetTokens.span}]
)
def test_values_out_of_range_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(changes))} must be "):
        CircuitBreakerOptions(**changes)


def naive_parts(layers: tuple[int, ...], jitter: float, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Zou et al., algorithm 1, one token at a time: the rerouting and the retain loss."""

    def states(one: Any, row: Any) -> tuple[torch.Tensor, ...]:
        return one(input_ids=torch.tensor([row.ids]), output_hidden_states=True).hidden_states

    turned, kept = [], []
    for row in FORGET:
        now, before = states(model, row), states(TARGET, row)
        for layer in layers:
            e = row_directions([row.row_id], WIDTH, 0, layer)[0].double()
            for h, ref in zip(now[layer][0], before[layer][0].detach(), strict=True):
                g = ref + jitter * (ref @ ref).sqrt() * e
                turned.append((h @ g / ((h @ h).sqrt() * (g @ g).sqrt())).clamp(min=0))
    for row in RETAIN:
        now, before = states(model, row), states(TARGET, row)
        for layer in layers:
            for h, ref in zip(now[layer][0], before[layer][0].detach(), strict=True):
                kept.append(((h - ref) @ (h - ref)).sqrt())
    return torch.stack(turned).mean(), torch.stack(kept).mean()


@pytest.mark.parametrize("micro_batch", [4, 1], ids=["whole", "accumulated"])
@pytest.mark.parametrize(("layers", "jitter"), [((1, 2), 0.1), ((1,), 0.5)])
def test_step_loss_is_the_papers(layers: tuple[int, ...], jitter: float, micro_batch: int) -> None:
    options = CircuitBreakerOptions(layers=list(layers), jitter=jitter, forget_weight=3.0, retain_weight=2.0)
    # The first step of a training: the retain term is there, and weighs nothing.
    loss, gradient, metrics = step_loss(options, None, micro_batch)
    turned, kept = naive_parts(layers, jitter, POLICY)
    assert loss == pytest.approx(3 * turned.item(), rel=1e-6)
    assert metrics["retain_loss"] == pytest.approx(kept.item(), rel=1e-6)
    torch.testing.assert_close(gradient, gradients(3 * turned, POLICY), rtol=1e-5, atol=1e-7)


def test_retain_part_is_0_at_the_start() -> None:
    _, _, metrics = step_loss(CircuitBreakerOptions(), model=moved(TARGET, 0.0))
    assert metrics["retain_loss"] == 0.0


def test_other_retain_terms_take_its_place() -> None:
    terms = CircuitBreaker(CircuitBreakerOptions(retain=Retain.nll)).retain_terms
    assert [term.name for term in terms] == ["nll"]
    assert CircuitBreaker(CircuitBreakerOptions(retain=Retain.none)).retain_terms == ()
