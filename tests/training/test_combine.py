"""Rules that make one gradient of two, and the adversary that moves weights, against closed forms and by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from erulab.adversaries.sam import SAM, SAMOptions
from erulab.adversaries.weights import WeightSpace
from erulab.data.rows import Benchmark
from erulab.models.loaded import LoadedModel
from erulab.options import Combine
from erulab.training.combine import Combination, bilevel, inner, remove_conflict
from tests.cases import Case
from tests.training.conftest import Unlearning

FORGET = [torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)]
RETAIN = [torch.tensor([[-2.0, 1.0], [1.0, -1.0]], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)]
ORTHOGONAL = [torch.tensor([[2.0, 1.0], [0.0, 0.0]], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]


def flat(gradient: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.flatten() for part in gradient])


def combined(rule: Combine, forget: list[torch.Tensor], retain: list[torch.Tensor], gamma: float = 1.0) -> torch.Tensor:
    return flat(Combination(rule, gamma, 0.9)(forget, retain))


@pytest.mark.parametrize("rule", Combine)
def test_orthogonal_gradients_are_added(rule: Combine) -> None:
    assert inner(FORGET, ORTHOGONAL) == 0
    torch.testing.assert_close(combined(rule, FORGET, ORTHOGONAL), flat(FORGET) + flat(ORTHOGONAL))


@pytest.mark.parametrize("rule", [Combine.pcgrad, Combine.gru])
def test_conflicting_gradients_never_work_against_the_retain_gradient(rule: Combine) -> None:
    """g . g_r is |g_r|^2: the forget gradient's part along g_r is gone, and the step still descends on L_retain."""
    f, r = flat(FORGET), flat(RETAIN)
    assert f @ r < 0
    g = combined(rule, FORGET, RETAIN)
    assert float(g @ r) == pytest.approx(float(r @ r))
    expected = f - (f @ r) / (r @ r) * r + r
    torch.testing.assert_close(g, expected)


def test_projection_does_not_depend_on_the_length_of_the_direction() -> None:
    once, again = remove_conflict(FORGET, RETAIN), remove_conflict(FORGET, [7 * part for part in RETAIN])
    torch.testing.assert_close(flat(once), flat(again))
    assert inner(once, RETAIN) == pytest.approx(0, abs=1e-12)


def test_agreeing_gradients_are_left() -> None:
    agreeing = [-part for part in RETAIN]
    torch.testing.assert_close(flat(remove_conflict(FORGET, agreeing)), flat(FORGET))


def test_blur_replaces_the_part_along_the_forget_gradient() -> None:
    """<g, g_f> is gamma |g_f|^2, and what is orthogonal to g_f is g_r's."""
    f, r = flat(FORGET), flat(RETAIN)
    g = flat(bilevel(FORGET, RETAIN, 0.25))
    assert float(g @ f) == pytest.approx(0.25 * float(f @ f))
    rest = r - (r @ f) / (f @ f) * f
    torch.testing.assert_close(g - (g @ f) / (f @ f) * f, rest)


def test_gru_projects_on_the_average_of_the_retain_gradients() -> None:
    combination = Combination(Combine.gru, 1.0, 0.9)
    combination(FORGET, ORTHOGONAL)
    average = 0.9 * flat(ORTHOGONAL) + 0.1 * flat(RETAIN)
    g, f, r = flat(combination(FORGET, RETAIN)), flat(FORGET), flat(RETAIN)
    assert f @ average < 0
    torch.testing.assert_close(g, f - (f @ average) / (average @ average) * average + r)
    copy = Combination(Combine.gru, 1.0, 0.9)
    copy.load_state_dict({name: value.clone() for name, value in combination.state_dict().items()})
    torch.testing.assert_close(flat(copy(FORGET, RETAIN)), flat(combination(FORGET, RETAIN)))


def quadratic(parameters: list[torch.nn.Parameter]) -> WeightSpace:
    """The forget gradient of sum of (i + 1) p^2 / 2 over the weights."""
    return WeightSpace(parameters, lambda: [(i + 1) * p.detach().clone() for i, p in enumerate(parameters)])


def test_sam_moves_by_rho_along_the_gradient_and_back_exactly() -> None:
    parameters = [torch.nn.Parameter(torch.tensor([0.1, 0.7])), torch.nn.Parameter(torch.tensor([[1e-3], [3.0]]))]
    before = [p.detach().clone() for p in parameters]
    gradient = SAM(SAMOptions(rho=0.3)).forget_gradient(quadratic(parameters), 0)
    assert all(torch.equal(p, kept) for p, kept in zip(parameters, before, strict=True))
    at_start = [(i + 1) * p for i, p in enumerate(before)]
    length = math.sqrt(sum(float(g.square().sum()) for g in at_start))
    for i, (g, p, start) in enumerate(zip(gradient, before, at_start, strict=True)):
        torch.testing.assert_close(g, (i + 1) * (p + 0.3 * start / length))
    moves = [(g - start) / (i + 1) for i, (g, start) in enumerate(zip(gradient, at_start, strict=True))]
    assert math.sqrt(sum(float(move.square().sum()) for move in moves)) == pytest.approx(0.3, rel=1e-5)


def test_weights_come_back_after_an_exception() -> None:
    parameters = [torch.nn.Parameter(torch.tensor([0.1, 0.7]))]
    before = parameters[0].detach().clone()
    calls: list[int] = []

    def gradient() -> list[torch.Tensor]:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return [torch.ones(2)]

    with pytest.raises(RuntimeError):
        SAM(SAMOptions(rho=0.3)).forget_gradient(WeightSpace(parameters, gradient), 0)
    assert torch.equal(parameters[0].detach(), before)


def test_gradients_taken_apart_and_added_are_those_of_one_forward(
    world: Benchmark, loaded: LoadedModel, tmp_path: Path
) -> None:
    """blur with gamma <g_r, g_f> / |g_f|^2 + 1 would be the sum; gru without conflict is; here: a tiny rho of sam."""
    plain = Unlearning(Case("npo", "reference"), world, loaded)
    apart = dataclasses.replace(plain, case=Case("npo", "reference", "sam", adversary_options={"rho": 1e-9}))
    first, second = plain.run(tmp_path)[0], apart.run(tmp_path)[0]
    for a, b in zip(first, second, strict=True):
        for name in ("loss", "forget_loss", "retain_loss", "grad_norm"):
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-5)


def test_sam_with_rho_0_is_the_plain_step_bit_for_bit(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    plain = Unlearning(Case("npo", "reference"), world, loaded)
    same = dataclasses.replace(plain, case=Case("npo", "reference", "sam", adversary_options={"rho": 0.0}))
    first, second = plain.run(tmp_path / "plain"), same.run(tmp_path / "sam")
    assert [m["loss"] for m in first[0]] == [m["loss"] for m in second[0]]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])
