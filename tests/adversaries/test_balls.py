"""noise and latent_pgd: ball, mask, radius; latent_pgd lowers the NLL and beats noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erulab.adversaries.balls import (
    Ball,
    Tokens,
    descent_step,
    median_norm,
    perturbed_layer,
    project_into_ball,
    values_of_forward_rows,
)
from erulab.adversaries.latent_pgd import LatentPGDOptions
from erulab.adversaries.noise import NoiseOptions, unit_noise
from erulab.errors import ConfigError, NumericFault
from erulab.models.policy import Policy
from erulab.tokens.batch import Batch, Encoded, collate
from tests.adversaries.conftest import (
    ADVERSARIES,
    FORGET_BATCH,
    LEFT_ALONE,
    OUTER,
    PERTURBED,
    ROWS,
    hooks_on,
    prepared,
    states,
    watched,
)
from tests.samples.tiny import FORGET, RETAIN, WIDTH, encoded, random_model

EVERY = torch.arange(len(FORGET))
both = pytest.mark.parametrize("name", ["noise", "latent_pgd"])


def delta(
    policy: Policy, adversary: Any, forget: Batch, outer: Batch, rows: torch.Tensor, layer: int = 1
) -> torch.Tensor:
    """Returns what the adversary adds to the input of its block."""
    plain = states(policy, outer, [layer])[layer]
    with adversary.attach(policy, forget, rows, 0), torch.no_grad(), watched(policy, [layer]) as seen:
        policy.row_nll(outer)
    return seen[layer] - plain


def radii(policy: Policy, eps_rel: float, layer: int = 1) -> list[float]:
    """Returns eps_rel times the median norm of each forget row's prompt states, without the first token."""
    plain = states(policy, FORGET_BATCH, [layer])[layer]
    found = []
    for i, row in enumerate(FORGET):
        norms = sorted(plain[i, t].norm().item() for t in range(1, row.start))
        n = len(norms)
        found.append(eps_rel * (norms[n // 2] if n % 2 else (norms[n // 2 - 1] + norms[n // 2]) / 2))
    return found


@pytest.mark.parametrize(("blocks", "layer"), [(1, 0), (2, 1), (3, 1), (4, 1), (8, 2), (16, 4), (32, 8)])
def test_default_layer_is_at_a_quarter_of_the_depth(blocks: int, layer: int) -> None:
    assert perturbed_layer(None, blocks) == layer
    assert perturbed_layer(blocks - 1, blocks) == blocks - 1
    with pytest.raises(ConfigError, match=f"between 0 and {blocks - 1} for this model"):
        perturbed_layer(blocks, blocks)


def test_projection_shortens_and_keeps_vectors_inside_the_ball() -> None:
    vectors = torch.tensor([[[3.0, 4.0], [0.3, 0.4]], [[3.0, 4.0], [0.0, 0.0]]], dtype=torch.float64)
    got = project_into_ball(vectors, torch.tensor([1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(got[0, 0], torch.tensor([0.6, 0.8], dtype=torch.float64))
    assert torch.equal(got[0, 1], vectors[0, 1]) and (got[1] == 0).all()
    torch.testing.assert_close(project_into_ball(got, torch.tensor([1.0, 0.0]).double()), got)


def test_step_keeps_ball_and_mask_and_takes_no_step_without_a_gradient() -> None:
    generator = torch.Generator().manual_seed(3)
    start, gradient = torch.randn(2, 3, 5, WIDTH, generator=generator, dtype=torch.float64)
    gradient[0, 1] = 0
    radius = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64)
    tokens = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]).bool()
    start = project_into_ball(start, radius) * tokens.unsqueeze(-1)
    got = descent_step(start, gradient, radius=radius, tokens=tokens, steps=5)
    assert (got.norm(dim=-1) <= radius[:, None] * (1 + 1e-12)).all() and (got[~tokens] == 0).all()
    torch.testing.assert_close(got[0, 1], start[0, 1])
    expected = start[2, 3] - 2.5 * 2.0 / 5 * gradient[2, 3] / gradient[2, 3].norm()
    torch.testing.assert_close(got[2, 3], expected / max(1.0, expected.norm() / 2.0))


def test_one_ball_for_a_sequence_is_a_projection_of_its_frobenius_norm() -> None:
    """All perturbed tokens of a row are one vector: |delta|_F <= eps; tokens outside the mask take no share of it."""
    generator = torch.Generator().manual_seed(4)
    gradient = torch.randn(2, 4, WIDTH, generator=generator, dtype=torch.float64)
    radius = torch.tensor([0.5, 2.0], dtype=torch.float64)
    tokens = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]]).bool()
    got, start = torch.zeros_like(gradient), torch.zeros_like(gradient)
    for k in range(4):
        got = descent_step(got, gradient, radius=radius, tokens=tokens, steps=10, ball=Ball.sequence)
        norms = got.flatten(1).norm(dim=1)
        torch.testing.assert_close(norms, torch.minimum(radius, (k + 1) * 0.25 * radius))  # eta is a quarter of eps
        assert (got[~tokens] == 0).all()
    one = descent_step(start, gradient, radius=radius, tokens=tokens, steps=10, ball=Ball.sequence)
    own = gradient[1, :3]
    torch.testing.assert_close(one[1, :3], -0.25 * 2.0 * own / own.square().sum().sqrt())


def test_the_published_ball_of_advnpo_holds_the_whole_sequence() -> None:
    policy = Policy(random_model())
    adversary = ADVERSARIES["latent_pgd"](ball=Ball.sequence, eps=0.7, tokens=Tokens.all, steps=3)
    got = delta(policy, adversary, FORGET_BATCH, FORGET_BATCH, EVERY)
    norms = got.flatten(1).norm(dim=1)
    assert (norms <= 0.7 * (1 + 1e-6)).all() and (norms > 0.35).all()


def test_median_leaves_out_first_token_padding_and_response() -> None:
    norms = torch.tensor([[100.0, 1.0, 3.0, 50.0], [100.0, 2.0, 9.0, 7.0], [5.0, 8.0, 8.0, 8.0]])
    values = torch.stack([norms, torch.zeros_like(norms)], -1)
    prompt = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    assert median_norm(values, prompt).tolist() == [2.0, 7.0, 0.0]


def test_values_of_forward_rows_pads_cuts_and_leaves_zeros() -> None:
    values = torch.arange(1.0, 7.0).view(2, 3)
    rows = torch.tensor([1, -1, 0, 1])
    assert values_of_forward_rows(values, rows, 4).tolist() == [[4, 5, 6, 0], [0] * 4, [1, 2, 3, 0], [4, 5, 6, 0]]
    assert values_of_forward_rows(values, rows, 2).tolist() == [[4, 5], [0, 0], [1, 2], [4, 5]]


@both
@pytest.mark.parametrize("tokens", list(Tokens))
def test_perturbation_keeps_ball_and_mask(name: str, tokens: Tokens) -> None:
    """Noise fills its ball, PGD stays in it; response, padding and rows left alone keep every bit."""
    policy = Policy(random_model())
    adversary = ADVERSARIES[name](eps_rel=0.2, tokens=tokens)
    got = delta(policy, adversary, FORGET_BATCH, OUTER, ROWS).norm(dim=-1)
    assert (got[LEFT_ALONE] == 0).all()
    for i in PERTURBED:
        end = FORGET[i].start if tokens is Tokens.prompt else FORGET[i].end
        assert (got[i, end:] == 0).all()
        radius = radii(policy, 0.2)[i]
        if name == "noise":
            assert got[i, :end].tolist() == pytest.approx([radius] * end, rel=1e-6)
        else:
            # The prompt's last token and those before it all reach the response: none is left where it was.
            assert (got[i, :end] <= radius * (1 + 1e-9)).all() and got[i, : FORGET[i].start].min() > 0.5 * radius


@both
def test_a_text_is_perturbed_at_all_its_tokens_but_the_first(name: str) -> None:
    """A text has no prompt. The batch holds a row with a prompt too; each row has the ball of its own median norm."""
    policy = Policy(random_model())
    text = Encoded("text", FORGET[1].ids, 0, len(FORGET[1].ids))
    batch = collate([text, FORGET[0]], 1)
    got = delta(policy, prepared(name, policy), batch, batch, torch.arange(2))
    norms = states(policy, batch, [1])[1].norm(dim=-1)
    assert got[0, 0].norm() == 0 and (got[0, 1 : text.end - 1].norm(dim=-1) > 1e-3).all()  # nothing follows the last
    assert (got[0, text.end :] == 0).all() and (got[1, FORGET[0].start :] == 0).all()
    radius = 0.3 * norms[0, 1 : text.end].quantile(0.5)
    assert float(got[0].norm(dim=-1).max()) <= float(radius) * (1 + 1e-6)


@both
def test_perturbs_the_input_of_its_layer_only(name: str) -> None:
    policy = Policy(random_model())
    adversary = ADVERSARIES[name](layer=2)
    assert delta(policy, adversary, FORGET_BATCH, OUTER, ROWS, layer=1).abs().max() == 0
    assert delta(policy, adversary, FORGET_BATCH, OUTER, ROWS, layer=2).abs().max() > 0
    with (
        pytest.raises(ConfigError, match="adversary.layer"),
        ADVERSARIES[name](layer=3).attach(policy, FORGET_BATCH, ROWS, 0),
    ):
        pass


@both
def test_prompt_delta_does_not_depend_on_the_outer_padding(name: str) -> None:
    """The forward holds a longer retain row, refusals or the row alone: the same delta at the same positions."""
    policy = Policy(random_model())
    adversary = ADVERSARIES[name]()
    wide_outer = collate([*FORGET, encoded("long", 12, 9)], 1)
    first = delta(policy, adversary, FORGET_BATCH, wide_outer, torch.tensor([0, 1, 2, 3, -1]))
    alone = delta(policy, adversary, collate([FORGET[2]], 1), collate([FORGET[2]], 1), torch.tensor([0]))
    prompt = FORGET[2].start
    torch.testing.assert_close(alone[0, :prompt], first[2, :prompt], rtol=1e-5, atol=1e-6)


def test_noise_is_a_function_of_seed_step_and_row() -> None:
    """The same numbers whatever stands beside the row and however long its neighbours are."""

    def noise(rows: list[Any], seed: int, step: int) -> torch.Tensor:
        batch = collate(rows, 1)
        return unit_noise(batch, batch.prompt_mask, WIDTH, seed, step)

    prompt = FORGET[2].start
    drawn = noise([FORGET[2]], 3, 5)[0, :prompt]
    assert torch.equal(noise([*RETAIN, FORGET[2]], 3, 5)[-1, :prompt], drawn)
    assert not torch.equal(noise([FORGET[2]], 3, 6)[0, :prompt], drawn)
    assert not torch.equal(noise([FORGET[2]], 4, 5)[0, :prompt], drawn)
    assert not torch.equal(noise([FORGET[2], FORGET[3]], 3, 5)[1, :prompt], drawn)


@pytest.mark.parametrize("eps_rel", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_nll_is_never_higher_than_without_perturbation(eps_rel: float, steps: int) -> None:
    """NLL(adv) <= NLL(clean) for every row, also where steps overshoot: per-row best of delta_0 .. delta_K."""
    policy = Policy(random_model(layers=4))
    adversary = ADVERSARIES["latent_pgd"](eps_rel=eps_rel, steps=steps)
    clean = policy.row_nll(FORGET_BATCH)
    with adversary.attach(policy, FORGET_BATCH, EVERY, 0):
        perturbed = policy.row_nll(FORGET_BATCH)
    assert (perturbed <= clean + 1e-9).all()


def test_last_iterate_alone_would_be_worse() -> None:
    """In a huge ball the last iterate is not the best for some row: the test above would fail without keep-best."""
    policy = Policy(random_model(layers=4))
    module = policy.blocks[1]
    adversary = ADVERSARIES["latent_pgd"](eps_rel=5.0, steps=6)
    best = delta(policy, adversary, FORGET_BATCH, FORGET_BATCH, EVERY)
    radius = torch.tensor(radii(policy, 5.0), dtype=torch.float64)
    trace, nlls = torch.zeros_like(best), []
    for _ in range(7):
        trace.requires_grad_()
        handle = module.register_forward_pre_hook(lambda m, args, d=trace: (args[0] + d, *args[1:]))
        nll = policy.row_nll(FORGET_BATCH)
        handle.remove()
        nlls.append(nll.detach())
        (g,) = torch.autograd.grad(nll.sum(), trace)
        step = trace.detach() - 2.5 * radius[:, None, None] / 6 * g / g.norm(dim=-1, keepdim=True).clamp(min=1e-300)
        shrink = (radius[:, None] / step.norm(dim=-1).clamp(min=1e-300)).clamp(max=1).unsqueeze(-1)
        trace = (step * shrink * FORGET_BATCH.prompt_mask.unsqueeze(-1)).detach()
    every = torch.stack(nlls)
    assert (every[-1] > every.min(0).values + 1e-6).any()
    with adversary.attach(policy, FORGET_BATCH, EVERY, 0):
        torch.testing.assert_close(policy.row_nll(FORGET_BATCH), every.min(0).values, rtol=1e-5, atol=1e-6)


def test_one_small_step_gains_eps_times_the_gradient_norms() -> None:
    """K = 1: delta_t = -eps g_t / ||g_t||, so the NLL falls by eps sum_t ||g_t|| to first order."""
    policy = Policy(random_model("gpt2"))  # computes in float64 throughout
    eps_rel = 1e-5
    adversary = ADVERSARIES["latent_pgd"](eps_rel=eps_rel, steps=1)
    shift = torch.zeros(*FORGET_BATCH.input_ids.shape, WIDTH, dtype=torch.float64, requires_grad=True)
    handle = policy.blocks[1].register_forward_pre_hook(lambda m, args: (args[0] + shift, *args[1:]))
    clean = policy.row_nll(FORGET_BATCH)
    handle.remove()
    (g,) = torch.autograd.grad(clean.sum(), shift)
    norms = (g.norm(dim=-1) * FORGET_BATCH.prompt_mask).sum(1)
    with adversary.attach(policy, FORGET_BATCH, EVERY, 0):
        drop = clean.detach() - policy.row_nll(FORGET_BATCH).detach()
    torch.testing.assert_close(drop, torch.tensor(radii(policy, eps_rel)).double() * norms, rtol=1e-2, atol=0)


def test_beats_noise_of_the_same_size() -> None:
    policy = Policy(random_model(layers=4))
    after = {}
    for name in ("noise", "latent_pgd"):
        with ADVERSARIES[name](eps_rel=0.3).attach(policy, FORGET_BATCH, EVERY, 0):
            after[name] = policy.row_nll(FORGET_BATCH).sum().item()
    assert after["latent_pgd"] < policy.row_nll(FORGET_BATCH).sum().item() - 1.0
    assert after["latent_pgd"] < after["noise"]


def test_lowers_the_forgotten_answer_also_where_the_forward_holds_refusals() -> None:
    """idk's forward: the delta is the one found on the true answers."""
    policy = Policy(random_model())
    adversary = ADVERSARIES["latent_pgd"]()
    on_answers = delta(policy, adversary, FORGET_BATCH, FORGET_BATCH, EVERY)
    refusals = collate([encoded(f"x{i}", row.start, 2) for i, row in enumerate(FORGET)], 1)
    on_refusals = delta(policy, adversary, FORGET_BATCH, refusals, EVERY)
    length = on_refusals.shape[1]
    torch.testing.assert_close(on_refusals, on_answers[:, :length], rtol=1e-9, atol=1e-9)


def test_a_process_without_perturbed_rows_runs_as_many_forwards() -> None:
    """Under ZeRO-3 each forward is a collective: every process makes the same number of them."""
    policy = Policy(random_model())
    counts = []
    for rows in (ROWS, torch.full_like(ROWS, -1), torch.arange(8).clamp(max=3)):
        calls = []
        handle = policy.norm.register_forward_hook(lambda m, a, o, calls=calls: calls.append(o.shape[0]))
        with ADVERSARIES["latent_pgd"](steps=3).attach(policy, FORGET_BATCH, rows, 0):
            pass
        handle.remove()
        counts.append(calls)
    assert counts == [[2] * 4, [1] * 4, [4] * 4]


def test_a_perturbation_that_is_not_finite_is_a_numeric_fault() -> None:
    policy = Policy(random_model())
    with torch.no_grad():
        policy.model.model.layers[2].mlp.down_proj.weight[0, 0] = float("nan")
    with (
        pytest.raises(NumericFault, match="not finite at step 4 for rows f0, f2"),
        ADVERSARIES["latent_pgd"]().attach(policy, FORGET_BATCH, ROWS, 4),
    ):
        pass
    assert hooks_on(policy) == 0


def test_published_defaults() -> None:
    assert (LatentPGDOptions().p, LatentPGDOptions().steps, LatentPGDOptions().eps_rel) == (1.0, 6, 0.1)
    assert (NoiseOptions().p, NoiseOptions().eps_rel, NoiseOptions().tokens) == (1.0, 0.1, Tokens.prompt)


@pytest.mark.parametrize(
    ("field", "changes"),
    [("p", {"p": -0.1}), ("eps_rel", {"eps_rel": -1.0}), ("layer", {"layer": -1}), ("steps", {"steps": 0})],
)
def test_values_out_of_range_are_named(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be "):
        LatentPGDOptions(**changes)
