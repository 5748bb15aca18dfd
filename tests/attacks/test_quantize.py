"""Round-to-nearest against its error bound and a search over all levels."""

from __future__ import annotations

import copy
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from erulab.attacks.base import Inapplicable
from erulab.attacks.quantize import Backend, Quantize, QuantizeOptions, _changed_codes, _remark
from erulab.attacks.weights.quantizers import GROUP, QUANTIZERS, round_to_nearest
from erulab.models.loaded import LoadedModel
from tests.attacks.conftest import PlainLab, attacked, headline
from tests.samples import tiny

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


@pytest.mark.parametrize("bits", [4, 8])
def test_bfloat16_weights_go_to_the_level_that_is_nearest_to_them(bits: int) -> None:
    weight = WEIGHT.bfloat16()
    assert torch.equal(round_to_nearest(weight, bits), round_to_nearest(weight.float(), bits).bfloat16())


def test_a_channel_of_zeros_stays_zero() -> None:
    assert torch.equal(round_to_nearest(torch.zeros(2, 3), 4), torch.zeros(2, 3))


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_linear_layers_are_rounded_and_nothing_else(kind: str, lab: PlainLab) -> None:
    model = tiny.random_model(kind)
    before = copy.deepcopy(model.state_dict())
    loaded = LoadedModel(model, None, None)  # type: ignore[arg-type]
    same = replace(lab, models={"target": loaded})
    (attempt,) = Quantize(QuantizeOptions()).attempts(loaded, {"backend": "rtn", "bits": 4}, same)
    assert attempt.changed is not None
    for name, weight in attempt.changed.model.state_dict().items():
        kept = weight.dim() < 2 or any(part in name for part in ("embed", "wte", "wpe", "lm_head"))
        assert torch.equal(weight, before[name]) == kept, name
        if not kept:
            # One scale an output channel: at most 15 values in each, whichever way the layer stores them.
            channels = weight.T if kind == "gpt2" else weight
            assert max(len(channel.unique()) for channel in channels) <= 15


def test_the_remark_counts_the_codes_that_differ_from_the_targets(lab: PlainLab) -> None:
    """With 4 bits and a largest weight of 7 codes are the weights themselves, so that two of 12 can be set by hand."""
    target = LoadedModel(nn.Sequential(nn.Linear(4, 3, bias=False)), None, None)  # type: ignore[arg-type]
    target.model.get_output_embeddings = lambda: None  # type: ignore[assignment]
    weight = torch.tensor([[7.0, 1, 2, 3], [-7, 0, 0, 5], [7, 6, 5, 4]])
    target.model[0].weight.data = weight.clone()
    for moved, share in ((0.3, "0.0%"), (0.7, "16.7%")):
        unlearned = copy.deepcopy(target)
        unlearned.model[0].weight.data[0, 1:3] += moved
        assert _changed_codes(unlearned, target, 4) == pytest.approx(float(share[:-1]) / 100, abs=1e-3)
        assert _remark(_changed_codes(unlearned, target, 4)) == f"{share} of the codes differ from the target's"
    unlearned.model[0].weight.data.neg_()
    assert _remark(_changed_codes(unlearned, target, 4)).startswith("not informative: 83.3% of the codes differ")
    other = LoadedModel(nn.Sequential(nn.Linear(4, 2, bias=False)), None, None)  # type: ignore[arg-type]
    other.model.get_output_embeddings = lambda: None  # type: ignore[assignment]
    assert _remark(_changed_codes(other, target, 4)) == ""


def test_the_remark_is_of_the_unlearned_model(models: dict[str, LoadedModel], lab: PlainLab) -> None:
    rows = attacked(Quantize(QuantizeOptions(bits=[4])), models, lab)
    share = _changed_codes(models["unlearned"], models["target"], 4)
    assert headline(rows)["note"].startswith(_remark(share)) and _remark(share)
    assert not any("codes" in row["note"] for row in rows if not row["headline"])


def test_one_setting_for_each_width(lab: PlainLab) -> None:
    attack = Quantize(QuantizeOptions(bits=[8, 3]))
    assert attack.settings(lab.benchmark, 0) == [{"backend": "rtn", "bits": 8}, {"backend": "rtn", "bits": 3}]
    for bits in ([], [1], [16]):
        with pytest.raises(ValueError, match="bits must be"):
            QuantizeOptions(bits=bits)
    with pytest.raises(ValueError, match="bits must be 8 or 4 unless"):
        QuantizeOptions(bits=[3], backends=[Backend.rtn, Backend.torchao])
    with pytest.raises(ValueError, match="backends must be"):
        QuantizeOptions(backends=[])


@pytest.mark.parametrize("backend", [Backend.bitsandbytes, Backend.torchao])
def test_a_library_rounds_within_its_own_steps(backend: Backend, lab: PlainLab) -> None:
    """Runs if the library is installed; otherwise the attack says what to install."""
    attack = Quantize(QuantizeOptions(backends=[backend]))
    if find_spec(backend.value) is None:
        with pytest.raises(Inapplicable, match=f"pip install {backend.value}, or .*backends=.rtn."):
            attack.settings(lab.benchmark, 0)
        return
    weight = torch.randn(6, 4 * GROUP, generator=torch.Generator().manual_seed(1))
    for bits in (8, 4):
        quantized = QUANTIZERS[backend.value](weight, bits)
        # nf4's levels are at most .31 of a block's largest weight apart, int4's a seventh, int8's a 127th.
        step = {8: 1 / 127, 4: 0.31 if backend is Backend.bitsandbytes else 1 / 7}[bits]
        groups = weight.view(6, -1, weight.shape[1] if bits == 8 else GROUP if backend is Backend.torchao else 64)
        largest = groups.abs().amax(-1, keepdim=True).expand_as(groups).reshape_as(weight)
        assert quantized.dtype == weight.dtype and not torch.equal(quantized, weight)
        # Half precision of weights and scales adds a thousandth.
        assert ((quantized - weight).abs() <= largest * (step / 2 + 1e-3)).all()
    assert QUANTIZERS[backend.value](weight[:, :10].double(), 4).dtype == torch.float64
