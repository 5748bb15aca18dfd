"""rmu: its limits, the weights it leaves alone, and its whole step loss against a computation in loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erulab.methods.needs import ForgetTokens, Step
from erulab.methods.retain import Retain
from erulab.methods.rmu import OUTPUT_MATRICES, RMU, RMUOptions, median_norms, steering_direction, steering_loss
from erulab.methods.seen import ForgetRows, Seen
from tests.methods.test_step_losses import POLICY, TARGET, step_loss, token_mean
from tests.models.conftest import tiny_model
from tests.samples.tiny import FORGET, RETAIN, gradients, random_model

WIDTH, C = 6, 6.5
U = steering_direction(WIDTH, 0).double()


def loss_of(states: torch.Tensor, length: float = C) -> torch.Tensor:
    return steering_loss(states, U, torch.full((len(states),), length, dtype=torch.float64))


def test_states_at_the_target_cost_nothing_and_zero_states_cost_c_squared_over_the_width() -> None:
    at_target = (C * U).repeat(3, 1)
    torch.testing.assert_close(loss_of(at_target), torch.zeros(3, dtype=torch.float64))
    zero = torch.zeros(3, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(loss_of(zero), torch.full((3,), C**2 / WIDTH, dtype=torch.float64), rtol=1e-6, atol=0)


def test_gradient_pulls_along_the_difference() -> None:
    states = torch.randn(4, WIDTH, dtype=torch.float64, requires_grad=True)
    (got,) = torch.autograd.grad(loss_of(states).sum(), states)
    torch.testing.assert_close(got, 2 * (states - C * U) / WIDTH)


def test_direction_has_length_1_and_positive_entries_and_depends_on_its_seed_alone() -> None:
    assert steering_direction(64, 0).norm() == pytest.approx(1.0, abs=1e-6)
    assert bool((steering_direction(64, 0) >= 0).all())
    assert torch.equal(steering_direction(64, 3), steering_direction(64, 3))
    assert not torch.equal(steering_direction(64, 3), steering_direction(64, 4))


def seen_rows(states: torch.Tensor, reference: torch.Tensor) -> ForgetRows:
    """Two rows of three and two tokens."""
    row = torch.tensor([0, 0, 0, 1, 1])
    seen = Seen(torch.tensor([1, 1]), torch.tensor([0, 1]), states={1: states}, state_row=row)
    return ForgetRows(seen, reference_states={1: reference})


def losses(options: RMUOptions, rows: ForgetRows, seed: int = 0) -> torch.Tensor:
    method = RMU(options)
    method.seed = seed
    return method.losses(rows, None, Step(0, 1))[0]


def test_adaptive_with_states_of_length_1_is_rmu() -> None:
    states = torch.randn(5, WIDTH, dtype=torch.float64)
    reference = torch.nn.functional.normalize(torch.randn(5, WIDTH, dtype=torch.float64), dim=-1)
    plain = losses(RMUOptions(c=2.0), seen_rows(states, reference))
    adaptive = losses(RMUOptions(c=2.0, adaptive=True), seen_rows(states, reference))
    torch.testing.assert_close(adaptive, plain, rtol=1e-6, atol=0)
    longer = losses(RMUOptions(c=2.0, adaptive=True), seen_rows(states, 3 * reference))
    torch.testing.assert_close(longer, losses(RMUOptions(c=6.0), seen_rows(states, reference)), rtol=1e-6, atol=0)


def test_two_run_seeds_steer_to_one_direction() -> None:
    rows = seen_rows(torch.randn(5, WIDTH), torch.randn(5, WIDTH))
    assert torch.equal(losses(RMUOptions(), rows, seed=1), losses(RMUOptions(), rows, seed=2))
    assert not torch.equal(losses(RMUOptions(), rows), losses(RMUOptions(direction_seed=1), rows))


def test_one_outlier_does_not_set_the_length_of_a_row() -> None:
    states = torch.eye(4)[[0, 1, 2, 3, 3]] * torch.tensor([1000.0, 2.0, 3.0, 5.0, 7.0])[:, None]
    assert median_norms(states, torch.tensor([3, 2])).tolist() == [3.0, 5.0]


def naive_rmu(block: int, c: float, adaptive: bool, alpha: float) -> torch.Tensor:
    """Li et al. eq. 1 and 2, one row at a time, with all hidden states of transformers."""

    def states(model: Any, row: Any) -> torch.Tensor:
        return model(input_ids=torch.tensor([row.ids]), output_hidden_states=True).hidden_states[block + 1][0]

    u = steering_direction(16, 0).double()
    forget = []
    for row in FORGET:
        norms = states(TARGET, row).detach().square().sum(1).sqrt()
        length = c * float(norms.sort().values[(len(norms) - 1) // 2]) if adaptive else c
        forget += [((h - length * u) ** 2).mean() for h in states(POLICY, row)]
    kept = []
    for row in RETAIN:
        pairs = zip(states(POLICY, row), states(TARGET, row).detach(), strict=True)
        kept += [((h - ref) ** 2).mean() for h, ref in pairs]
    return torch.stack(forget).mean() + alpha * torch.stack(kept).mean()


@pytest.mark.parametrize("micro_batch", [4, 1], ids=["whole", "accumulated"])
@pytest.mark.parametrize(("block", "c", "adaptive"), [(0, 6.5, False), (1, 2.0, False), (1, 3.0, True)])
def test_step_loss_is_the_papers(block: int, c: float, adaptive: bool, micro_batch: int) -> None:
    options = RMUOptions(layer=block, c=c, adaptive=adaptive, retain_weight=20.0)
    loss, gradient, metrics = step_loss(options, None, micro_batch)
    expected = naive_rmu(block, c, adaptive, 20.0)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(gradient, gradients(expected, POLICY), rtol=1e-5, atol=1e-7)
    assert loss == pytest.approx(metrics["forget_loss"] + 20 * metrics["retain_loss"], rel=1e-9)


def test_retain_nll_runs_through_the_head() -> None:
    loss, gradient, _ = step_loss(RMUOptions(layer=1, retain=Retain.nll, retain_weight=0.5))
    expected = naive_rmu(1, 6.5, False, 0.0) + 0.5 * token_mean(RETAIN)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(gradient, gradients(expected, POLICY), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "matrix"),
    [("llama", "down_proj"), ("phi", "fc2"), ("gpt2", "c_proj"), ("mixtral", "down_proj")],
)
def test_trains_the_output_matrices_of_three_mlps(kind: str, matrix: str) -> None:
    model = tiny_model(kind, num_hidden_layers=6)
    method = RMU(RMUOptions(layer=4))
    trained = [name for name, _ in model.named_parameters() if method.trains(name, 6)]
    assert len({name for name in trained if f".{matrix}" in name and ".mlp." in name}) == len(trained)
    assert sorted({int(name.split(".")[2]) for name in trained}) == [2, 3, 4]
    assert matrix in OUTPUT_MATRICES


def test_trains_adapters_on_those_matrices_only() -> None:
    method = RMU(RMUOptions(layer=4))
    name = "base_model.model.model.layers.{}.mlp.{}.lora_A.default.weight"
    assert method.trains(name.format(4, "down_proj"), 6)
    assert not method.trains(name.format(5, "down_proj"), 6) and not method.trains(name.format(4, "up_proj"), 6)


def test_layer_counts_blocks_and_is_a_quarter_deep_by_default() -> None:
    """ "Layer 7" of 32 is block 7, whose output is h_8."""
    assert RMU(RMUOptions()).layers(32) == RMU(RMUOptions(layer=7)).layers(32) == (8,)
    assert RMU(RMUOptions()).layers(4) == (1,)
    with pytest.raises(ValueError, match="^layer must be a block of the model, 0 to 3, got 4"):
        RMU(RMUOptions(layer=4)).layers(4)


@pytest.mark.parametrize(
    "changes", [{"layer": -1}, {"c": 0.0}, {"retain_weight": -1.0}, {"forget_tokens": ForgetTokens.span}]
)
def test_values_out_of_range_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(changes))} must be "):
        RMUOptions(**changes)


def test_random_models_differ_in_every_state() -> None:
    """The comparison above would not see a wrong layer if states were equal."""
    hidden = random_model()(input_ids=torch.tensor([FORGET[0].ids]), output_hidden_states=True).hidden_states
    assert all(float((a - b).detach().norm()) > 0.1 for a, b in zip(hidden, hidden[1:], strict=False))
