"""Magnitude pruning against a sort by hand, on all layouts."""

from __future__ import annotations

import copy

import pytest
import torch

from erulab.attacks.prune import Prune, PruneOptions, zero_smallest
from erulab.models.loaded import LoadedModel
from tests.attacks.conftest import PlainLab
from tests.samples import tiny

WEIGHT = torch.randn(7, 33, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.5])
def test_the_smallest_are_zero_and_the_rest_is_as_it_was(share: float) -> None:
    pruned = zero_smallest(WEIGHT, share)
    count = round(share * WEIGHT.numel())
    smallest = sorted(range(WEIGHT.numel()), key=lambda i: abs(float(WEIGHT.flatten()[i])))[:count]
    expected = [0.0 if i in set(smallest) else float(w) for i, w in enumerate(WEIGHT.flatten())]
    assert pruned.flatten().tolist() == expected


def test_of_equal_weights_no_more_than_the_share_goes() -> None:
    assert int((zero_smallest(torch.ones(10, 10), 0.3) == 0).sum()) == 30


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_each_matrix_loses_its_share_and_nothing_else_changes(kind: str, lab: PlainLab) -> None:
    model = tiny.random_model(kind)
    before = copy.deepcopy(model.state_dict())
    loaded = LoadedModel(model, None, None)  # type: ignore[arg-type]
    nothing, half = Prune(PruneOptions(shares=[0.0, 0.5])).attempts(loaded, {}, lab)
    assert [nothing.chosen, half.chosen] == [{"share": 0.0}, {"share": 0.5}]
    assert nothing.changed is not None and half.changed is not None
    for name, weight in half.changed.model.state_dict().items():
        assert torch.equal(nothing.changed.model.state_dict()[name], before[name])
        kept = weight.dim() < 2 or any(part in name for part in ("embed", "wte", "wpe", "lm_head"))
        zeros = 0 if kept else weight.numel() // 2
        assert int((weight == 0).sum()) == int((before[name] == 0).sum()) + zeros, name
        assert torch.equal(weight[weight != 0], before[name][weight != 0])


def test_options_out_of_range() -> None:
    for shares in ([], [1.0], [-0.1]):
        with pytest.raises(ValueError, match="shares must be"):
            PruneOptions(shares=shares)
