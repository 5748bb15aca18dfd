"""Each method's whole step loss, with its retain term, against an independent computation in loops.

The objective runs padded micro-batches of all rows in one forward; the naive side runs one row at a time with full
logits and writes each paper's formula down as the paper does.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from erulab.adversaries.none import NoAdversaryOptions
from erulab.methods.needs import Answer, Pairs
from erulab.models.policy import Policy
from erulab.options import RunConfig, TrainerOptions
from erulab.ranks import Ranks
from erulab.registry import load_plugins, methods
from erulab.rewards.elastic import ElasticOptions, Standardization
from erulab.rewards.reference import ReferenceOptions
from erulab.rewards.reference_free import ReferenceFreeOptions
from erulab.training.assembly import build_objective
from erulab.training.reference import ReferenceTable
from erulab.training.unlearning import References, compares_with_frozen_model
from erulab.training.unlearning_batches import UnlearningRows
from tests.samples.tiny import (
    FORGET,
    PAIRED,
    RETAIN,
    RETAIN_PAIRED,
    gradients,
    moved,
    naive_nll,
    naive_token_nll,
    random_model,
)

load_plugins()
TARGET = random_model()
POLICY = moved(TARGET)


def step_loss(
    options: Any,
    reward_options: Any = None,
    micro_batch: int = 4,
    forget_weight: float | None = None,
    retain_weight: float | None = None,
    model: Any = POLICY,
) -> tuple[float, torch.Tensor, dict[str, float]]:
    """Loss, gradient and metrics of one optimizer step over all rows, as the training loop takes it."""
    method = methods.build(options)
    uses_others = method.needs.answer is Answer.refusal or method.needs.pairs is not Pairs.none
    with torch.no_grad():
        tables = [torch.stack([naive_nll(TARGET, row) for row in rows]) for rows in (FORGET, PAIRED)]
    config = RunConfig(
        method=dataclasses.replace(
            options,
            forget_weight=options.forget_weight if forget_weight is None else forget_weight,
            retain_weight=options.retain_weight if retain_weight is None else retain_weight,
        ),
        reward=reward_options,
        adversary=NoAdversaryOptions(),
        trainer=TrainerOptions(global_batch=4, micro_batch=micro_batch),
    )
    compares_retain = any(term.paired for term in method.retain_terms)
    rows = UnlearningRows(FORGET, PAIRED if uses_others else [], RETAIN, RETAIN_PAIRED if compares_retain else [])
    frozen = Policy(TARGET) if compares_with_frozen_model(method) else None
    references = References(ReferenceTable(*tables) if method.needs.reward else None, frozen)
    objective = build_objective(config, rows, Policy(model), references, pad_id=1, ranks=Ranks())
    sums: dict[str, torch.Tensor] = {}
    gradient = torch.zeros(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    for micro in objective.micro_batches(0):
        with objective.micro_step(Policy(model), micro) as (loss, micro_sums):
            gradient += gradients(loss, model)
        sums = {name: sums.get(name, torch.zeros(())) + value for name, value in micro_sums.items()}
    metrics = objective.end_step({name: float(value) for name, value in sums.items()})
    return metrics["loss"], gradient, metrics


def options_of(name: str, **changes: Any) -> Any:
    return methods[name].options(**changes)


def p(model: Any, row: Any) -> torch.Tensor:
    """Probability of the row's response."""
    return (-naive_nll(model, row)).exp()


def mean(values: Any) -> torch.Tensor:
    return torch.stack(list(values)).mean()


def token_mean(rows: Any) -> torch.Tensor:
    """Returns the mean NLL over the tokens of all rows, not the mean of the rows' means."""
    return mean(nll for row in rows for nll in naive_token_nll(POLICY, row))


def ratio(row: Any) -> torch.Tensor:
    """pi(y|x) / pi_ref(y|x)."""
    return p(POLICY, row) / p(TARGET, row).detach()


def naive_ga() -> torch.Tensor:
    return -token_mean(FORGET)


def naive_gd() -> torch.Tensor:
    return -token_mean(FORGET) + token_mean(RETAIN)


def naive_kl() -> torch.Tensor:
    terms = []
    for row in RETAIN:
        q = TARGET(input_ids=torch.tensor([row.ids])).logits[0].softmax(-1).detach()
        now = POLICY(input_ids=torch.tensor([row.ids])).logits[0].softmax(-1)
        terms += [(q[t - 1] * (q[t - 1] / now[t - 1]).log()).sum() for t in range(row.start, row.end)]
    return -token_mean(FORGET) + mean(terms)


def naive_idk() -> torch.Tensor:
    return token_mean(PAIRED) + token_mean(RETAIN)


def naive_npo() -> torch.Tensor:
    """Zhang et al. eq. 3: 2/beta E log(1 + (pi/pi_ref)^beta)."""
    beta = 0.1
    return mean(2 / beta * (1 + ratio(row) ** beta).log() for row in FORGET) + token_mean(RETAIN)


def naive_simnpo() -> torch.Tensor:
    """Fan et al. eq. 4: -2/beta E log sigmoid(-beta/|y| log pi - gamma), with their gamma = beta * ours."""
    beta, gamma = 2.5, 2.5 * 0.3
    losses = [-2 / beta * torch.sigmoid(-beta / row.tokens * p(POLICY, row).log() - gamma).log() for row in FORGET]
    return mean(losses) + token_mean(RETAIN)


def naive_dpo() -> torch.Tensor:
    """Rafailov et al. eq. 7 with the refusal preferred, times 2/beta."""
    beta = 0.1
    losses = [
        -2 / beta * torch.sigmoid(beta * ratio(idk).log() - beta * ratio(row).log()).log()
        for row, idk in zip(FORGET, PAIRED, strict=True)
    ]
    return mean(losses) + token_mean(RETAIN)


def naive_eru() -> torch.Tensor:
    """The raw reward: margin gamma + lambda l_ref + alpha D, no gradient through it."""
    beta, gamma, lambda_ref, alpha = 2.5, 0.1, 0.4, 0.3
    losses = []
    for row in FORGET:
        now, ref = naive_nll(POLICY, row) / row.tokens, naive_nll(TARGET, row) / row.tokens
        margin = (gamma + lambda_ref * ref + alpha * (now - ref)).item()
        losses.append(2 / beta * (1 + (-beta * (now - margin)).exp()).log())
    return mean(losses) + token_mean(RETAIN)


def naive_eru_pairs() -> torch.Tensor:
    beta, alpha = 2.5, 0.3
    losses = []
    for row, idk in zip(FORGET, PAIRED, strict=True):
        u, u_ref = (naive_nll(m, row) / row.tokens - naive_nll(m, idk) / idk.tokens for m in (POLICY, TARGET))
        margin = (alpha * (u - u_ref)).item()
        losses.append(2 / beta * (1 + (-beta * (u - margin)).exp()).log())
    return mean(losses) + token_mean(RETAIN)


RAW = ElasticOptions(z=Standardization.raw, alpha=0.3, gamma=0.1, lambda_ref=0.4)
RAW_PAIRS = ElasticOptions(z=Standardization.raw, alpha=0.3)
CASES = {
    "ga": (options_of("ga"), None, naive_ga),
    "gd": (options_of("gd"), None, naive_gd),
    "kl": (options_of("kl"), None, naive_kl),
    "idk": (options_of("idk"), None, naive_idk),
    "npo": (options_of("npo"), ReferenceOptions(), naive_npo),
    "simnpo": (options_of("simnpo"), ReferenceFreeOptions(gamma=0.3), naive_simnpo),
    "dpo": (options_of("dpo"), ReferenceOptions(), naive_dpo),
    "eru": (options_of("eru"), RAW, naive_eru),
    "eru-pairs": (options_of("eru", pairs=Pairs.refusal), RAW_PAIRS, naive_eru_pairs),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("micro_batch", [4, 1], ids=["whole", "accumulated"])
def test_step_loss_is_the_papers(name: str, micro_batch: int) -> None:
    options, reward, naive = CASES[name]
    loss, gradient, _ = step_loss(options, reward, micro_batch)
    expected = naive()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient, gradients(expected, POLICY), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gd", "kl", "npo", "eru"])
def test_forget_and_retain_weight_scale_their_own_term(name: str) -> None:
    """L = forget_weight L_forget + retain_weight L_retain; metrics hold the parts unweighted."""
    options, reward, _ = CASES[name]
    loss, _, metrics = step_loss(options, reward, forget_weight=0.5, retain_weight=3.0)
    assert loss == pytest.approx(0.5 * metrics["forget_loss"] + 3.0 * metrics["retain_loss"], rel=1e-9)


def test_gd_without_retain_weight_is_ga() -> None:
    first, second = step_loss(CASES["gd"][0], retain_weight=0.0), step_loss(CASES["ga"][0])
    assert first[0] == pytest.approx(second[0], rel=1e-9)
    torch.testing.assert_close(first[1], second[1], rtol=1e-6, atol=1e-7)


def test_kl_at_the_start_is_ga() -> None:
    """At p = p_ref the KL term's value and gradient are 0."""
    start = moved(TARGET, 0.0)
    first, second = step_loss(CASES["kl"][0], model=start), step_loss(CASES["ga"][0], model=start)
    assert first[2]["retain_loss"] == pytest.approx(0.0, abs=1e-12)
    torch.testing.assert_close(first[1], second[1], rtol=1e-6, atol=1e-7)


def test_token_mean_is_not_a_mean_of_rows() -> None:
    """The rows are ragged enough that mixing the two up would show."""
    rows = mean(naive_nll(POLICY, row) / row.tokens for row in FORGET)
    assert abs(rows - token_mean(FORGET)) > 0.01


def test_eru_without_adversary_and_alpha_is_simnpo() -> None:
    eru = step_loss(options_of("eru"), ElasticOptions(alpha=0.0))
    simnpo = step_loss(options_of("simnpo"), ReferenceFreeOptions())
    assert eru[0] == simnpo[0] and torch.equal(eru[1], simnpo[1])
