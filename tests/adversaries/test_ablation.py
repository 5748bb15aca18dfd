"""rfa and random_direction: estimation of directions, warm-up, and the coordinate left along them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from erulab.adversaries.ablation import AblationOptions, Sites, ablated_layers
from erulab.adversaries.directions import project_out, unit
from erulab.adversaries.random_direction import RandomDirection
from erulab.adversaries.rfa import RFA, AblationFill, Direction, RFAOptions
from erulab.errors import ConfigError
from erulab.models.policy import Policy
from tests.adversaries.conftest import (
    ADVERSARIES,
    FORGET_BATCH,
    LEFT_ALONE,
    OUTER,
    PERTURBED,
    ROWS,
    draw,
    prepared,
    states,
    watched,
)
from tests.samples.tiny import WIDTH, moved, random_model

LAYERS = [1, 2, 3]  # of three blocks, from a quarter of the depth on, the final norm's input last


def last_states(model: Any, part: str, n: int, step: int, layer: int) -> torch.Tensor:
    """(n, width) at the last prompt token, each prompt alone; layer < number of blocks."""
    batch = draw(part, n, step)
    found = []
    for ids, prompt in zip(batch.input_ids, batch.prompt_mask, strict=True):
        own = model(input_ids=ids[prompt][None], output_hidden_states=True).hidden_states
        found.append(own[layer][0, -1])
    return torch.stack(found).detach()


def directions(adversary: Any) -> torch.Tensor:
    assert adversary._directions is not None
    return adversary._directions


def perturbed_states(policy: Policy, adversary: Any, layers: list[int]) -> dict[int, torch.Tensor]:
    """Returns the inputs of the modules at these layers, with all hooks applied."""
    with adversary.attach(policy, FORGET_BATCH, ROWS, 0), torch.no_grad(), watched(policy, layers) as seen:
        policy.row_nll(OUTER)
    return seen


@pytest.mark.parametrize(
    ("share", "blocks", "expected"),
    [(0.25, 4, [1, 2, 3, 4]), (0.25, 3, [1, 2, 3]), (0.25, 16, list(range(4, 17))), (1.0, 3, [3]), (0.0, 2, [0, 1, 2])],
)
def test_layers_of_block_inputs(share: float, blocks: int, expected: list[int]) -> None:
    assert ablated_layers(AblationOptions(layers_from=share), blocks) == expected


def test_layer_of_all_writes() -> None:
    assert ablated_layers(AblationOptions(sites=Sites.all_writes), 6) == [3]
    assert ablated_layers(AblationOptions(sites=Sites.all_writes, layer=5), 6) == [5]
    with pytest.raises(ConfigError, match="adversary.layer must be between 0 and 6"):
        ablated_layers(AblationOptions(sites=Sites.all_writes, layer=7), 6)


@pytest.mark.parametrize("step", [0, 4])
def test_rfa_direction_is_the_normalised_difference_of_means(step: int) -> None:
    """Of the prompts drawn for this step, under the current model."""
    model = random_model()
    adversary = prepared("rfa", Policy(moved(model)))
    adversary.prepare(step, 10, Policy(model), draw)
    for i, layer in enumerate([1, 2]):
        r = last_states(model, "forget", 3, step, layer).mean(0) - last_states(model, "retain", 3, step, layer).mean(0)
        torch.testing.assert_close(directions(adversary)[i], r / r.norm(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["rfa", "random_direction"])
def test_nothing_is_left_along_the_direction_at_any_site(name: str) -> None:
    """On prompt AND response tokens: ablating the last position alone changes nothing in the loss."""
    policy = Policy(random_model())
    adversary = prepared(name, policy)
    plain, seen = states(policy, OUTER, LAYERS), perturbed_states(policy, adversary, LAYERS)
    for i, layer in enumerate(LAYERS):
        r = directions(adversary)[i]
        real = OUTER.attention_mask[PERTURBED].bool()
        assert (plain[layer][PERTURBED][real] @ r).abs().min() > 1e-6
        assert (seen[layer][PERTURBED][real] @ r).abs().max() < 1e-12
        assert torch.equal(seen[layer][LEFT_ALONE], plain[layer][LEFT_ALONE])
    first = project_out(plain[1][PERTURBED], directions(adversary)[0])
    torch.testing.assert_close(seen[1][PERTURBED], first)


def test_retain_mean_fills_the_direction() -> None:
    model = random_model()
    policy = Policy(model)
    adversary = prepared("rfa", policy, fill=AblationFill.retain_mean)
    seen = perturbed_states(policy, adversary, [1, 2])
    for i, layer in enumerate([1, 2]):
        r = directions(adversary)[i]
        expected = last_states(model, "retain", 3, 0, layer).mean(0) @ r
        got = seen[layer][PERTURBED] @ r
        torch.testing.assert_close(got, expected.expand_as(got), rtol=1e-5, atol=1e-6)


def orthogonalised(model: Any, r: torch.Tensor) -> Any:
    """Abliteration: (I - r r^T) on every weight that writes to the residual stream."""
    ablated = copy.deepcopy(model)
    keep = torch.eye(WIDTH, dtype=torch.float64) - torch.outer(r, r)
    with torch.no_grad():
        ablated.model.embed_tokens.weight.copy_(ablated.model.embed_tokens.weight @ keep)
        for block in ablated.model.layers:
            for matrix in (block.self_attn.o_proj, block.mlp.down_proj):
                matrix.weight.copy_(keep @ matrix.weight)
    return ablated


@pytest.mark.parametrize("name", ["rfa", "random_direction"])
def test_all_writes_are_orthogonalised_weights(name: str) -> None:
    """One direction, untied embeddings: hooks on an perturbed row and abliterated weights are the same model."""
    model = random_model()
    policy = Policy(model)
    adversary = prepared(name, policy, sites=Sites.all_writes)
    abliterated = Policy(orthogonalised(model, directions(adversary)[0]))
    with adversary.attach(policy, FORGET_BATCH, ROWS, 0):
        got = policy.row_nll(OUTER)
    torch.testing.assert_close(got[PERTURBED], abliterated.row_nll(OUTER)[PERTURBED], rtol=1e-6, atol=1e-6)
    assert torch.equal(got[LEFT_ALONE], policy.row_nll(OUTER)[LEFT_ALONE])


def test_all_writes_refuses_an_unknown_layout() -> None:
    policy = Policy(random_model())
    del policy.blocks[0].mlp
    adversary = ADVERSARIES["random_direction"](sites=Sites.all_writes)
    adversary._active, adversary._directions = True, torch.zeros(1, WIDTH)
    with (
        pytest.raises(TypeError, match="what LlamaDecoderLayer writes .* not known"),
        adversary.attach(policy, FORGET_BATCH, ROWS, 0),
    ):
        pass


@pytest.mark.parametrize("name", ["rfa", "random_direction"])
def test_warmup_is_a_share_of_the_steps(name: str) -> None:
    """Of 40 steps the first four are plain."""
    policy = Policy(random_model())
    adversary = ADVERSARIES[name](warmup=0.1)
    plain = policy.row_nll(OUTER)
    for step, active in ((0, False), (3, False), (4, True), (39, True)):
        adversary.prepare(step, 40, policy, draw)
        with adversary.attach(policy, FORGET_BATCH, ROWS, step):
            assert torch.equal(policy.row_nll(OUTER), plain) is not active


def test_directions_are_estimated_again_every_few_steps_with_new_prompts() -> None:
    """The first estimate comes when warm-up ends, whatever `every`."""
    policy = Policy(random_model())
    adversary = ADVERSARIES["rfa"](warmup=0.1, every=4, n=2)
    before, changes = None, []
    for step in range(13):
        adversary.prepare(step, 20, policy, draw)
        now = adversary._directions
        if now is not None and (before is None or not torch.equal(now, before)):
            changes.append(step)
        before = now
    assert changes == [2, 4, 8, 12]


def test_policy_minus_target_is_zero_before_training_and_changes_no_bit() -> None:
    policy = Policy(random_model())
    adversary = prepared("rfa", policy, direction=Direction.policy_minus_target)
    with adversary.attach(policy, FORGET_BATCH, ROWS, 0):
        assert torch.equal(policy.row_nll(OUTER), policy.row_nll(OUTER)) and (directions(adversary) == 0).all()
        perturbed = policy.row_nll(OUTER)
    assert torch.equal(perturbed, policy.row_nll(OUTER))
    assert adversary.metrics() == {"direction_ratio": 0.0}


def test_policy_minus_target_is_what_training_added() -> None:
    """The same prompts of step 0 under both models, also when prepared at a later step and after a resume."""
    target, policy = random_model(), moved(random_model())
    adversary = ADVERSARIES["rfa"](direction=Direction.policy_minus_target)
    adversary.prepare(0, 10, Policy(target), draw)
    resumed = ADVERSARIES["rfa"](direction=Direction.policy_minus_target)
    resumed.load_state_dict(adversary.state_dict())
    for subject in (adversary, resumed):
        subject.prepare(4, 10, Policy(policy), draw)
        for i, layer in enumerate([1, 2]):
            r = last_states(policy, "forget", 3, 0, layer).mean(0) - last_states(target, "forget", 3, 0, layer).mean(0)
            torch.testing.assert_close(directions(subject)[i], unit(r), rtol=1e-5, atol=1e-6)


def test_states_of_the_target_are_kept_from_step_0_also_in_warmup() -> None:
    """The first step comes before the first update; later the policy is no longer the target."""
    adversary = ADVERSARIES["rfa"](direction=Direction.policy_minus_target, warmup=0.5)
    adversary.prepare(0, 10, Policy(random_model()), draw)
    kept = adversary.state_dict()["target"]
    adversary.prepare(5, 10, Policy(moved(random_model())), draw)
    assert torch.equal(adversary.state_dict()["target"], kept) and directions(adversary).norm() > 1


def test_rfa_resumes_between_two_estimates() -> None:
    first, resumed = (ADVERSARIES["rfa"](every=4, fill=AblationFill.retain_mean) for _ in range(2))
    policy = Policy(random_model())
    first.prepare(4, 10, policy, draw)
    resumed.load_state_dict(first.state_dict())
    later = Policy(moved(random_model()))
    for subject in (first, resumed):
        subject.prepare(5, 10, later, draw)
    assert first.metrics() == resumed.metrics() and "direction_ratio" in first.metrics()
    with first.attach(later, FORGET_BATCH, ROWS, 5):
        expected = later.row_nll(OUTER)
    with resumed.attach(later, FORGET_BATCH, ROWS, 5):
        assert torch.equal(later.row_nll(OUTER), expected)


def test_random_directions_are_a_function_of_seed_and_layer() -> None:
    policy, other = Policy(random_model()), Policy(moved(random_model()))
    first, second = (directions(prepared("random_direction", p)) for p in (policy, other))
    assert torch.equal(first, second), "directions depend on the weights"
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(3).double())
    assert (first @ first.T - torch.eye(3)).abs().max() < 0.9
    reseeded: RandomDirection = ADVERSARIES["random_direction"]()
    reseeded.seed = 14
    reseeded.prepare(0, 10, policy, draw)
    assert not torch.equal(directions(reseeded), first)


def test_published_defaults() -> None:
    o = RFAOptions()
    assert (o.p, o.n, o.every, o.warmup, o.layers_from) == (0.5, 32, 4, 0.1, 0.25)
    assert (o.sites, o.fill, o.direction) == (Sites.block_inputs, AblationFill.zero, Direction.forget_minus_retain)
    assert RFA(o).p == 0.5


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("p", {"p": 1.5}),
        ("warmup", {"warmup": 1.0}),
        ("n", {"n": 0}),
        ("every", {"every": 0}),
        ("layers_from", {"layers_from": -0.1}),
        ("layer", {"layer": -1}),
        ("fill", {"fill": AblationFill.retain_mean, "sites": Sites.all_writes}),
        ("fill", {"fill": AblationFill.retain_mean, "direction": Direction.policy_minus_target}),
    ],
)
def test_values_out_of_range_are_named(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be "):
        RFAOptions(**changes)
