"""Formulas of methods that compute weights: task_vector and undo; and the distillation of undo against loops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from erulab.errors import ConfigError
from erulab.methods.task_vector import negated_task
from erulab.methods.undo import UndoOptions, noised
from erulab.models.policy import Policy
from erulab.options import Precision
from erulab.ranks import Ranks
from erulab.registry import load_plugins, methods
from erulab.stages.lab import computed_weights
from erulab.training.batches import Split
from erulab.training.distillation import DistillationObjective
from erulab.training.local import LocalEngine
from erulab.training.objective import BatchPlan
from tests.samples.tiny import RETAIN, moved, random_model

load_plugins()
GENERATOR = torch.Generator().manual_seed(2)
BEFORE, AFTER = (torch.randn(4, 6, dtype=torch.float64, generator=GENERATOR) for _ in range(2))


def test_a_task_vector_is_linear_in_alpha_and_0_is_nothing() -> None:
    assert torch.equal(negated_task(BEFORE, AFTER, alpha=0.0), BEFORE)
    torch.testing.assert_close(negated_task(BEFORE, AFTER, alpha=-1.0), AFTER)
    one, three = (negated_task(BEFORE, AFTER, alpha=alpha) - BEFORE for alpha in (1.0, 3.0))
    torch.testing.assert_close(three, 3 * one)


def test_noise_has_the_variance_of_initial_values_and_alpha_mixes_it_in() -> None:
    weight = torch.randn(300, 500, generator=GENERATOR)
    noise = noised(weight, alpha=1.0, beta=1.0, seed=3, name="a")
    assert float(noise.std()) == pytest.approx((2 / 800) ** 0.5, rel=0.01)
    assert abs(float(noise.mean())) < 1e-3
    mixed = noised(weight, alpha=0.25, beta=0.5, seed=3, name="a")
    torch.testing.assert_close(mixed, 0.75 * weight + 0.125 * noise)
    assert torch.equal(mixed, noised(weight, alpha=0.25, beta=0.5, seed=3, name="a"))
    for seed, name in ((4, "a"), (3, "b")):
        assert not torch.equal(noise, noised(weight, alpha=1.0, beta=1.0, seed=seed, name=name))


def test_experts_of_a_mixture_are_matrices_and_a_convolution_is_none() -> None:
    """transformers holds the experts of a layer as one weight; a convolution's weight has three axes too."""
    experts = torch.zeros(4, 100, 300)
    noise = noised(experts, alpha=1.0, beta=1.0, seed=3, name="model.layers.0.mlp.experts.down_proj")
    for one in noise:
        assert float(one.std()) == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert not torch.equal(noise[0], noise[1])
    convolution = torch.zeros(8, 1, 4)
    assert noised(convolution, alpha=1.0, beta=1.0, seed=3, name="layers.0.linear_attn.conv1d.weight") is convolution


def test_alpha_0_and_vectors_are_left_as_they_are() -> None:
    assert noised(BEFORE, alpha=0.0, beta=1.0, seed=0, name="a") is BEFORE
    assert torch.equal(noised(BEFORE[0], alpha=0.5, beta=1.0, seed=0, name="norm"), BEFORE[0])


def test_a_weight_that_two_layers_share_is_computed_once() -> None:
    tied = random_model()
    tied.config.tie_word_embeddings = True
    tied.get_output_embeddings().weight = tied.get_input_embeddings().weight

    class Loaded:
        model = tied

    names = [name for name, _ in computed_weights([Loaded()], lambda name, weights: weights[0])]  # type: ignore[list-item]
    assert names.count("model.embed_tokens.weight") == 1 and "lm_head.weight" not in names


@pytest.mark.parametrize("first", ["none", "retrain", "undo"])
def test_undo_needs_a_method_that_trains(first: str) -> None:
    with pytest.raises(ConfigError, match=f"method.first={first} trains no model"):
        UndoOptions(first={"name": first})


def test_undo_fills_the_options_of_its_first_method() -> None:
    assert UndoOptions(first={"name": "simnpo", "beta": 4.5}).first == methods["simnpo"].options(beta=4.5)
    with pytest.raises(ConfigError, match="unknown key method.first.betta"):
        UndoOptions(first={"name": "npo", "betta": 1})


def test_distillation_against_loops() -> None:
    """Mean over all response tokens of sum_v q_v log(q_v / p_v), its gradient, and 0 at the teacher."""
    teacher, student = random_model(), moved(random_model())
    policy = Policy(student)
    plan = BatchPlan(4, Split(micro_batch=2), 0, 1, Ranks())
    objective = DistillationObjective(RETAIN, Policy(teacher), plan, torch.device("cpu"))
    engine = LocalEngine(policy, weight_decay=0.0, clip=0.0, precision=Precision.fp32)
    sums = objective.accumulate(engine, objective.micro_batches(0))

    def terms() -> Iterator[torch.Tensor]:
        for row in RETAIN:
            q = teacher(input_ids=torch.tensor([row.ids])).logits[0].softmax(-1).detach()
            p = student(input_ids=torch.tensor([row.ids])).logits[0].softmax(-1)
            yield from ((q[t - 1] * (q[t - 1] / p[t - 1]).log()).sum() for t in range(row.start, row.end))

    loss = torch.stack(list(terms())).mean()
    assert float(sums["loss"]) == pytest.approx(float(loss.detach()), rel=1e-9)
    found = [p.grad for p in student.parameters()]
    for p, g in zip(found, torch.autograd.grad(loss, list(student.parameters())), strict=True):
        torch.testing.assert_close(p, g, rtol=1e-7, atol=1e-10)
    same = DistillationObjective(RETAIN, Policy(teacher), plan, torch.device("cpu"))
    with torch.no_grad(), same.micro_step(Policy(teacher), same.micro_batches(0)[0]) as (zero, _):
        assert abs(float(zero)) < 1e-12
