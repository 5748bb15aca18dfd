"""relearning and tar: the simulated attacker against torch's optimizers and a computation in loops."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from erulab.adversaries.relearning import AdamUpdate, InnerOptimizer, Relearning, RelearningOptions
from erulab.adversaries.weights import WeightSpace
from erulab.data.rows import Benchmark
from erulab.methods.tar import TAROptions
from erulab.models.loaded import LoadedModel
from erulab.models.policy import Policy
from erulab.options import Precision, RunConfig, TrainerOptions
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded
from erulab.training.assembly import build_objective
from erulab.training.batches import Split, rows_of_stream
from erulab.training.local import LocalEngine
from erulab.training.objective import BatchPlan
from erulab.training.relearning import RelearnedRows
from erulab.training.unlearning import References
from erulab.training.unlearning_batches import UnlearningRows
from tests.cases import Case
from tests.samples.tiny import FORGET, RETAIN, encoded, moved, naive_token_nll, random_model
from tests.training.conftest import Unlearning, small_model, small_world


@pytest.fixture(scope="module")
def world() -> Benchmark:
    return small_world()


@pytest.fixture(scope="module")
def loaded(world: Benchmark) -> LoadedModel:
    return small_model(world)


def options(**changes: object) -> RelearningOptions:
    plain = RelearningOptions(steps=4, every=2, lr=0.1, optimizer=InnerOptimizer.sgd)
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def test_sgd_on_a_parabola_in_closed_form() -> None:
    """Relearning on p^2/2 gives theta_k = .9^k theta; the forget gradient 3 p is averaged over k = 2 and 4."""
    theta = nn.Parameter(torch.tensor([1.0, -2.0]))
    before = theta.detach().clone()
    space = WeightSpace([theta], lambda: [3 * theta.detach()], lambda number: [theta.detach().clone()])
    (found,) = Relearning(options()).forget_gradient(space, 0)
    torch.testing.assert_close(found, 3 * (0.9**2 + 0.9**4) / 2 * before)
    assert torch.equal(theta, before)  # restored


def test_batches_are_numbered_from_1_and_weights_are_restored_after_an_error() -> None:
    theta, seen = nn.Parameter(torch.ones(3)), []

    def relearn(number: int) -> list[torch.Tensor]:
        seen.append(number)
        if number == 3:
            raise RuntimeError
        return [torch.ones(3)]

    with pytest.raises(RuntimeError):
        Relearning(options()).forget_gradient(WeightSpace([theta], lambda: [torch.zeros(3)], relearn), 0)
    assert seen == [1, 2, 3] and torch.equal(theta, torch.ones(3))


def test_adam_updates_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    theta = nn.Parameter(torch.randn(5, generator=generator))
    ours, update = theta.detach().clone(), AdamUpdate()
    optimizer = torch.optim.AdamW([theta], lr=0.01, weight_decay=0.0)
    for _ in range(5):
        theta.grad = torch.randn(5, generator=generator)
        ours -= 0.01 * update([theta.grad])[0]
        optimizer.step()
    torch.testing.assert_close(ours, theta.detach())


def plan(global_batch: int) -> BatchPlan:
    return BatchPlan(global_batch, Split(), 3, 1, Ranks())


def ids(rows: RelearnedRows, step: int, number: int) -> set[str]:
    return {name for micro in rows.of_step(step, number) for name in micro.batch.row_ids}


def test_relearned_rows_are_about_other_facts_than_the_rows_of_the_step() -> None:
    forget = [encoded(f"row{i}", 4, 3) for i in range(12)]
    facts = [f"fact {i // 2}" for i in range(12)]  # two phrasings each
    rows = RelearnedRows(UnlearningRows(forget, [], [], facts=facts), plan(3), torch.device("cpu"))
    together = set()
    for step in range(6):
        trained = {facts[i] for i in rows_of_stream(3, "forget", 12, step * 3, 3)}
        relearned = [ids(rows, step, number) for number in (1, 2)]
        for one in relearned:
            assert len(one) == 3 and not {facts[int(name[3:])] for name in one} & trained
        assert not relearned[0] & relearned[1]  # batches follow one another through the rows that are left
        assert relearned == [ids(rows, step, number) for number in (1, 2)]
        together |= relearned[0]
    assert len(together) > 6


def test_a_step_about_every_fact_relearns_on_all_forget_rows() -> None:
    rows = RelearnedRows(UnlearningRows(FORGET, [], RETAIN), plan(4), torch.device("cpu"))
    assert ids(rows, 0, 1) == {row.row_id for row in FORGET}


def test_no_relearning_is_the_plain_step_bit_for_bit(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    cases = Case("tar"), Case("tar", "none", "relearning", adversary_options={"steps": 0})
    (found, weights), (expected, same) = [Unlearning(case, world, loaded, steps=2).run(tmp_path) for case in cases]
    assert [m["loss"] for m in found] == [m["loss"] for m in expected]
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_relearning_is_counted_as_the_adversary(world: Benchmark, loaded: LoadedModel, tmp_path: Path) -> None:
    """K steps over as many rows cost K times one: in proportion to K, up to the lengths of the rows that are drawn.

    The one forget gradient that is taken counts as the training's.
    """

    def cost(steps: int) -> float:
        case = Case("ga", "none", "relearning", adversary_options={"steps": steps, "every": steps})
        return float(Unlearning(case, world, loaded, steps=1).run(tmp_path)[0][0]["cost/flops_adversary"])

    assert cost(1) > 0 and cost(4) == pytest.approx(4 * cost(1), rel=0.2)


TARGET = random_model()
START = moved(TARGET)


def naive_gap(model: nn.Module, rows: list[Encoded]) -> torch.Tensor:
    """Mean over response tokens of sum_v u log(u / p_v), u = 1 / V."""
    terms = []
    for row in rows:
        p = model(input_ids=torch.tensor([row.ids])).logits[0].softmax(-1)
        u = 1 / p.shape[-1]
        terms += [(u * (u / p[t - 1]).log()).sum() for t in range(row.start, row.end)]
    return torch.stack(terms).mean()


def naive_retain(model: nn.Module) -> torch.Tensor:
    """NLL per token, plus half the mean squared distance of the last states before the final norm."""

    def states(of: nn.Module, row: Encoded) -> torch.Tensor:
        kept: list[torch.Tensor] = []
        hook = of.model.norm.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
        of(input_ids=torch.tensor([row.ids]))
        hook.remove()
        return kept[0][0]

    nll = torch.stack([one for row in RETAIN for one in naive_token_nll(model, row)]).mean()
    apart = torch.cat([(states(model, row) - states(TARGET, row).detach()).square().mean(-1) for row in RETAIN])
    return nll + 0.5 * apart.mean()


def test_a_step_of_tar_against_loops() -> None:
    """Gradient of one step: two relearning steps on the two rows that the step leaves out."""
    model = copy.deepcopy(START)
    config = RunConfig(
        method=TAROptions(forget_weight=0.7, states_weight=0.5),
        reward=None,
        adversary=options(steps=2, every=1, lr=0.05),
        trainer=TrainerOptions(global_batch=2, retain_ratio=2.0, micro_batch=1),
    )
    policy = Policy(model)
    rows = UnlearningRows(FORGET, [], RETAIN)
    objective = build_objective(config, rows, policy, References(None, Policy(TARGET)), pad_id=1, ranks=Ranks())
    engine = LocalEngine(policy, weight_decay=0.0, clip=0.0, precision=Precision.fp32)
    objective.start_step(0, 1)
    objective.accumulate(engine, objective.micro_batches(0))
    found = [p.grad for p in model.parameters()]

    step = rows_of_stream(0, "forget", 4, 0, 2)
    own, others = [FORGET[i] for i in step], [row for i, row in enumerate(FORGET) if i not in step]
    other = copy.deepcopy(START)
    weights = list(other.parameters())
    total = [torch.zeros_like(p) for p in weights]
    for _ in range(2):
        nll = torch.stack([one for row in others for one in naive_token_nll(other, row)]).mean()
        gradient = torch.autograd.grad(nll, weights)
        with torch.no_grad():
            for p, g in zip(weights, gradient, strict=True):
                p -= 0.05 * g
        for one, g in zip(total, torch.autograd.grad(0.7 * naive_gap(other, own), weights), strict=True):
            one += g / 2
    start = copy.deepcopy(START)
    kept = torch.autograd.grad(naive_retain(start), list(start.parameters()))
    for p, one, g in zip(found, total, kept, strict=True):
        assert p is not None
        # Gradients taken apart are kept in float32.
        torch.testing.assert_close(p, one + g, rtol=1e-5, atol=1e-6)
