"""Contracts of every adversary: rows left alone, parameters, hooks, checkpointing, and no effect at zero strength."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from erulab.adversaries.none import NoAdversary, NoAdversaryOptions
from erulab.models.policy import Policy
from erulab.tokens.batch import collate
from tests.adversaries.conftest import (
    ADVERSARIES,
    FORGET_BATCH,
    LEFT_ALONE,
    OUTER,
    PERTURBED,
    ROWS,
    draw,
    hooks_on,
    prepared,
)
from tests.samples.tiny import FORGET, KINDS, PAIRED, RETAIN, gradients, random_model

every_adversary = pytest.mark.parametrize("case", [*ADVERSARIES, "rfa-writes"])


def build(case: str, policy: Policy, **options: Any) -> Any:
    if case == "rfa-writes":
        from erulab.adversaries.ablation import Sites

        return prepared("rfa", policy, sites=Sites.all_writes, **options)
    return prepared(case, policy, **options)


def perturbed_nll(policy: Policy, adversary: Any, batch: Any = OUTER, rows: torch.Tensor = ROWS) -> torch.Tensor:
    with adversary.attach(policy, FORGET_BATCH, rows, 0):
        return policy.row_nll(batch)


@every_adversary
@pytest.mark.parametrize("kind", KINDS)
def test_perturbed_rows_change_and_other_rows_keep_every_bit(case: str, kind: str) -> None:
    policy = Policy(random_model(kind))
    plain, got = policy.row_nll(OUTER), perturbed_nll(policy, build(case, policy))
    assert torch.equal(got[LEFT_ALONE], plain[LEFT_ALONE])
    assert ((got - plain)[PERTURBED].abs() > 1e-3).all()


@every_adversary
def test_rows_left_alone_keep_their_gradient(case: str) -> None:
    policy = Policy(random_model())
    nobody = torch.full_like(ROWS, -1)
    plain = gradients(policy.row_nll(OUTER).sum(), policy.model)
    adversary = build(case, policy)
    with adversary.attach(policy, FORGET_BATCH, nobody, 0):
        got = gradients(policy.row_nll(OUTER).sum(), policy.model)
    torch.testing.assert_close(got, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [("noise", {"p": 0.0}), ("noise", {"eps_rel": 0.0}), ("latent_pgd", {"p": 0.0}), ("latent_pgd", {"eps_rel": 0.0})],
)
def test_zero_strength_changes_nothing(name: str, options: dict[str, float]) -> None:
    policy = Policy(random_model())
    assert torch.equal(perturbed_nll(policy, prepared(name, policy, **options)), policy.row_nll(OUTER))


def test_none_changes_nothing() -> None:
    policy = Policy(random_model())
    adversary = NoAdversary(NoAdversaryOptions())
    adversary.prepare(0, 10, policy, draw)
    assert adversary.p == 0 and torch.equal(perturbed_nll(policy, adversary), policy.row_nll(OUTER))
    with pytest.raises(ValueError, match="p must be 0 without an adversary"):
        NoAdversaryOptions(p=0.5)


@every_adversary
def test_with_p_zero_an_adversary_is_never_prepared_and_changes_nothing(case: str) -> None:
    """With p = 0 the loop never calls prepare and marks no row."""
    policy = Policy(random_model())
    name = case.removesuffix("-writes")
    adversary = ADVERSARIES[name](p=0.0)
    got = perturbed_nll(policy, adversary, rows=torch.full_like(ROWS, -1))
    assert torch.equal(got, policy.row_nll(OUTER))


@every_adversary
def test_hooks_are_gone(case: str) -> None:
    policy = Policy(random_model())
    adversary = build(case, policy)
    assert hooks_on(policy) == 0
    with adversary.attach(policy, FORGET_BATCH, ROWS, 0):
        assert hooks_on(policy) > 0
    assert hooks_on(policy) == 0


@every_adversary
def test_hooks_are_gone_after_an_exception(case: str) -> None:
    policy = Policy(random_model())
    adversary = build(case, policy)
    with pytest.raises(KeyError), adversary.attach(policy, FORGET_BATCH, ROWS, 0):
        raise KeyError("inside")
    assert hooks_on(policy) == 0


@every_adversary
def test_hooks_are_gone_when_a_forward_of_its_own_fails(case: str) -> None:
    policy = Policy(random_model())
    broken = collate(FORGET, 1)
    broken.input_ids[0, 1] = 10_000
    name = case.removesuffix("-writes")
    with pytest.raises(IndexError):
        ADVERSARIES[name]().prepare(0, 10, policy, lambda part, n, step: broken)
        with prepared(name, policy).attach(policy, broken, torch.arange(4), 0):
            policy.row_nll(broken)
    assert hooks_on(policy) == 0


@every_adversary
def test_parameters_and_their_gradients_stay_as_they_are(case: str) -> None:
    """Accumulated gradients and requires_grad survive prepare and the inner loop; frozen parameters stay frozen."""
    policy = Policy(random_model())
    frozen = policy.model.get_input_embeddings().weight
    frozen.requires_grad_(False)
    kept = {}
    for name, p in policy.named_parameters():
        if p.requires_grad:
            p.grad = torch.full_like(p, 0.5)
        kept[name] = (p.detach().clone(), p.requires_grad)
    with build(case, policy).attach(policy, FORGET_BATCH, ROWS, 0):
        pass
    for name, p in policy.named_parameters():
        assert torch.equal(p, kept[name][0]) and p.requires_grad == kept[name][1]
        assert (p.grad == 0.5).all() if p.requires_grad else p.grad is None


@every_adversary
@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_changes_nothing(case: str, kind: str) -> None:
    """Backward runs the hooked modules again while the context is open."""
    found = []
    for checkpointing in (False, True):
        policy = Policy(random_model(kind).train())
        if checkpointing:
            policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        with build(case, policy).attach(policy, FORGET_BATCH, ROWS, 0):
            found.append(gradients(policy.row_nll(OUTER).sum(), policy.model))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)


@every_adversary
def test_works_without_gradients_too(case: str) -> None:
    """The loop measures the gain under no_grad: the same forward."""
    policy = Policy(random_model())
    adversary = build(case, policy)
    with torch.no_grad():
        got = perturbed_nll(policy, adversary)
    torch.testing.assert_close(got, perturbed_nll(policy, adversary).detach(), rtol=0, atol=0)


@every_adversary
def test_other_rows_of_the_batch_change_nothing(case: str) -> None:
    """A row's perturbation is a function of seed, step and row: alone, in another order, padded differently."""
    policy = Policy(random_model())
    adversary = build(case, policy)
    together = perturbed_nll(policy, adversary, collate([*FORGET, RETAIN[2]], 1), torch.tensor([0, 1, 2, 3, -1]))
    for i, row in enumerate(FORGET):
        alone = collate([row], 1)
        with adversary.attach(policy, alone, torch.tensor([0]), 0):
            torch.testing.assert_close(policy.row_nll(alone)[0], together[i], rtol=1e-5, atol=1e-5)


@every_adversary
def test_both_answers_of_a_pair_get_the_same_perturbation(case: str) -> None:
    """Forget rows, their refusals and a retain row in one forward: refusals alone give the same (idk's forward)."""
    policy = Policy(random_model())
    adversary = build(case, policy)
    pairs = collate([*FORGET, *PAIRED, RETAIN[0]], 1)
    rows = torch.tensor([0, 1, -1, 3, 0, 1, -1, 3, -1])
    with adversary.attach(policy, FORGET_BATCH, rows, 0):
        both = policy.row_nll(pairs)
    with adversary.attach(policy, FORGET_BATCH, rows[4:8], 0):
        refusals = policy.row_nll(collate(PAIRED, 1))
    torch.testing.assert_close(refusals, both[4:8], rtol=1e-5, atol=1e-5)
    assert ((refusals - policy.row_nll(collate(PAIRED, 1)))[[0, 1, 3]].abs() > 1e-4).all()


@every_adversary
def test_half_precision_models_keep_their_type(case: str) -> None:
    policy = Policy(random_model(dtype=torch.bfloat16))
    got = perturbed_nll(policy, build(case, policy))
    assert got.dtype == torch.float32 and got.isfinite().all()
    assert torch.equal(got[LEFT_ALONE], policy.row_nll(OUTER)[LEFT_ALONE])


@every_adversary
def test_lora_changes_nothing(case: str) -> None:
    """A fresh adapter adds zero: the same sites are found under peft's wrapper."""
    from peft import LoraConfig, get_peft_model

    plain = Policy(random_model())
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    wrapped = Policy(get_peft_model(random_model(), config))
    got = perturbed_nll(wrapped, build(case, wrapped))
    torch.testing.assert_close(got, perturbed_nll(plain, build(case, plain)), rtol=1e-9, atol=1e-9)
    got.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in wrapped.parameters())


def test_plugins_load_without_torch() -> None:
    code = "import erulab.adversaries, erulab.methods, erulab.rewards, sys; sys.exit('torch._C' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
