"""Round-to-nearest against its error bound and a search over all levels."""

from __future__ import annotations

import copy

import pytest
import torch

from erulab.attacks.quantize import Quantize, QuantizeOptions, round_to_nearest
from erulab.models.loaded import LoadedModel
from tests import tiny
from tests.attacks.conftest import PlainLab

WEIGHT = torch.randn(7, 33, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_every_weight_becomes_the_nearest_level_of_its_channel(bits: int) -> None:
    quantized = round_to_nearest(WEIGHT, bits)
    for row, result in zip(WEIGHT, quantized, strict=True):
        scale = float(row.abs().max()) / (2 ** (bits - 1) - 1)
        levels = torch.arange(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1), dtype=torch.float64) * scale
        nearest = levels[(row[:, None] - levels).abs().argmin(1)]
        torch.testing.assert_close(result, nearest, rtol=0, atol=1e-12)
        assert float((row - result).abs().max()) <= scale / 2 + 1e-12


def test_more_bits_are_closer_and_twice_is_once() -> None:
    errors = [float((WEIGHT - round_to_nearest(WEIGHT, bits)).norm()) for bits in range(2, 9)]
    assert errors == sorted(errors, reverse=True)
    once = round_to_nearest(WEIGHT, 4)
    torch.testing.assert_close(round_to_nearest(once, 4), once, rtol=0, atol=1e-12)


def test_a_channel_of_zeros_stays_zero() -> None:
    assert torch.equal(round_to_nearest(torch.zeros(2, 3), 4), torch.zeros(2, 3))


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_linear_layers_are_rounded_and_nothing_else(kind: str, lab: PlainLab) -> None:
    model = tiny.random_model(kind)
    before = copy.deepcopy(model.state_dict())
    loaded = LoadedModel(model, None, None)  # type: ignore[arg-type]
    (attempt,) = Quantize(QuantizeOptions()).attempts(loaded, {"bits": 4}, lab)
    assert attempt.changed is not None
    for name, weight in attempt.changed.model.state_dict().items():
        kept = weight.dim() < 2 or any(part in name for part in ("embed", "wte", "wpe", "lm_head"))
        assert torch.equal(weight, before[name]) == kept, name
        if not kept:
            # One scale an output channel: at most 15 values in each, whichever way the layer stores them.
            channels = weight.T if kind == "gpt2" else weight
            assert max(len(channel.unique()) for channel in channels) <= 15


def test_one_setting_for_each_width(lab: PlainLab) -> None:
    attack = Quantize(QuantizeOptions(bits=[8, 3]))
    assert attack.settings(lab.benchmark, 0) == [{"bits": 8}, {"bits": 3}]
    for bits in ([], [1], [16]):
        with pytest.raises(ValueError, match="bits must be"):
            QuantizeOptions(bits=bits)
