"""FAULTS 37: attacks change the experts of a mixture as they change linear layers, and count what they leave alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from erulab.attacks.base import Inapplicable
from erulab.attacks.weights.left_alone import MOST, unchanged
from erulab.attacks.weights.linear_layers import expert_weights, linear_weights, rewrite_weights
from erulab.attacks.weights.quantizers import round_to_nearest
from erulab.models.loaded import LoadedModel
from tests.attacks.weights.mixtures import EXPERTS, MIXTURES, WIDTH, mixture
from tests.samples import tiny

every_mixture = pytest.mark.parametrize("kind", MIXTURES)


def loaded(model: PreTrainedModel) -> LoadedModel:
    return LoadedModel(model, None, None)  # type: ignore[arg-type]


def matrices(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields the parameters of the blocks that are no vectors and no stacked biases."""
    for name, parameter in model.named_parameters():
        if ".layers." in name and parameter.squeeze().dim() > 1 and not name.endswith("_bias"):
            yield name, parameter


def nearest(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Rounds the weight of an `nn.Linear` (out, in) row by row, by a search over all levels."""
    most = 2 ** (bits - 1) - 1
    rows = []
    for row in weight:
        levels = torch.arange(-most, most + 1) * (row.abs().max() / most)
        rows.append(levels[(row[:, None] - levels).abs().argmin(1)])
    return torch.stack(rows)


@every_mixture
def test_all_matrices_but_the_routers_are_rounded(kind: str) -> None:
    """FAULTS 37: the share of the blocks' weights that change is 1 but for routers and short convolutions."""
    model = mixture(kind)
    rounded = copy.deepcopy(model)
    left = rewrite_weights(loaded(rounded), lambda weight: round_to_nearest(weight, 2))
    own = dict(matrices(rounded))
    same = {name: before.numel() for name, before in matrices(model) if torch.equal(before, own[name])}
    total = sum(parameter.numel() for parameter in own.values())
    assert all("gate" in name or "router" in name or "conv1d" in name for name in same), same
    assert any("gate" in name or "router" in name for name in same)
    assert sum(left.values()) == pytest.approx(sum(same.values()) / total)
    assert {name.split(".layers.")[1].partition(".")[2] for name in same} == set(left)
    assert unchanged(loaded(model), loaded(rounded)).keys() >= left.keys()


@every_mixture
def test_an_expert_is_rounded_as_a_linear_layer_with_its_weights(kind: str) -> None:
    """The in dimension tells the orientation: what an expert reads first and what it writes is the model's width."""
    model = mixture(kind)
    found = [
        (name, expert)
        for module in model.modules()
        for name, _ in module.named_parameters(recurse=False)
        for expert in expert_weights(module, name)
    ]
    assert found and len(found) % EXPERTS == 0
    assert all(WIDTH in expert.shape for _, expert in found)
    for name, expert in found:
        if name != "weight":  # JetMoE's say nothing of what they are for
            assert expert.shape[0 if name == "down_proj" else 1] == WIDTH, name
    before = [expert.clone() for _, expert in found]
    rewrite_weights(loaded(model), lambda weight: round_to_nearest(weight, 4))
    for (_, after), expert in zip(found, before, strict=True):
        torch.testing.assert_close(after, nearest(expert, 4))


def test_experts_that_do_not_say_how_they_are_stored() -> None:
    """Llama 4's and JetMoE's own forward, against linear layers with the views' weights."""
    from transformers.models.jetmoe.modeling_jetmoe import JetMoeParallelExperts
    from transformers.models.llama4.configuration_llama4 import Llama4TextConfig
    from transformers.models.llama4.modeling_llama4 import Llama4TextExperts

    config = Llama4TextConfig(hidden_size=6, intermediate_size=10, num_local_experts=2, hidden_act="silu")
    llama4, jetmoe = Llama4TextExperts(config), JetMoeParallelExperts(2, 6, 10)
    rows = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in (*llama4.parameters(), *jetmoe.parameters()):
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.shape[1]))
        expected = []
        for read, first, last in zip(
            rows, expert_weights(llama4, "gate_up_proj"), expert_weights(llama4, "down_proj"), strict=True
        ):
            gate, up = F.linear(read, first).chunk(2, dim=-1)
            expected.append(F.linear(up * F.silu(gate), last))
        torch.testing.assert_close(llama4(rows.flatten(0, 1)), torch.cat(expected))
        own = [F.linear(read, one) for read, one in zip(rows, expert_weights(jetmoe, "weight"), strict=True)]
        torch.testing.assert_close(jetmoe(rows.flatten(0, 1), [3, 3]), torch.cat(own))


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_dense_model_has_nothing_left_alone(kind: str) -> None:
    model = tiny.random_model(kind)
    assert rewrite_weights(loaded(model), lambda weight: round_to_nearest(weight, 2)) == {}


def test_matrices_that_are_not_known_are_refused_and_nothing_changes() -> None:
    """FAULTS 37: one parameter of a block with 8192 of its 10112 weights."""
    model = tiny.random_model()
    for block in model.model.layers:
        block.mlp.register_parameter("w1", nn.Parameter(torch.ones(64, 128)))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(Inapplicable, match=r"^81 % of the blocks' weights \(mlp.w1\) are neither in linear"):
        rewrite_weights(loaded(model), torch.zeros_like)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_few_weights_elsewhere_are_counted() -> None:
    model = tiny.random_model()
    model.model.layers[1].mlp.register_parameter("rates", nn.Parameter(torch.ones(8, 8)))
    total = sum(parameter.numel() for _, parameter in matrices(model))
    left = rewrite_weights(loaded(model), torch.zeros_like)
    assert left == {"mlp.rates": pytest.approx(64 / total)} and sum(left.values()) < MOST


def test_routers_are_told_by_their_place_in_a_mixture_only() -> None:
    """A dense model may call a layer `gate`; a mixture's router may be an ordinary linear layer."""
    dense = tiny.random_model()
    dense.model.layers[0].mlp.gate = nn.Linear(4, 4)
    known = {weight.data_ptr() for weight in linear_weights(loaded(dense))}
    assert dense.model.layers[0].mlp.gate.weight.data_ptr() in known
    model = mixture("phimoe")
    assert isinstance(model.model.layers[0].mlp.router, nn.Linear)
    known = {weight.data_ptr() for weight in linear_weights(loaded(model))}
    assert model.model.layers[0].mlp.router.weight.data_ptr() not in known
