"""Patched log-probabilities against hooks on transformers' own forward, one row at a time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from erulab.costs.ledger import Ledger
from erulab.evaluation.depth.patching import PatchedRow, save_states, score_patched
from erulab.models import packing
from erulab.models.attention import PACKED, PACKING
from erulab.models.loaded import LoadedModel
from erulab.models.policy import Policy
from erulab.tokens.batch import Encoded
from tests.models.conftest import SPECIAL, tiny_model
from tests.samples import tiny

# The value of each row: some tokens of the response, apart from each other in the third.
ROWS = [
    dataclasses.replace(row, supervised=tuple(row.start + i for i in places))
    for row, places in zip(tiny.FORGET, ((1, 2), (0,), (1, 4, 5), (0, 1)), strict=True)
]
ROWS = [dataclasses.replace(row, ids=row.ids[: row.positions[-1] + 1], end=row.positions[-1] + 1) for row in ROWS]
ROWS.sort(key=lambda row: len(row.ids))
TOKENS = 60  # several batches


class Pad:
    """The part of a chat format that batches need."""

    pad_id = 0


def patched(target: PreTrainedModel, source: PreTrainedModel, folder: Path) -> list[PatchedRow]:
    file = folder / "states.npy"
    save_states(LoadedModel(source, None, Pad()), ROWS, TOKENS, file)  # type: ignore[arg-type]
    return score_patched(LoadedModel(target, None, Pad()), ROWS, TOKENS, file)  # type: ignore[arg-type]


def naive(target: PreTrainedModel, source: PreTrainedModel, row: Encoded, layer: int | None) -> float:
    """Runs one row with the outputs of block layer - 1 replaced where the value is predicted; None: as it is."""
    ids, before = torch.tensor([row.ids]), [position - 1 for position in row.positions]
    seen: list[torch.Tensor] = []

    def site(model: PreTrainedModel) -> torch.nn.Module:
        assert layer is not None
        return Policy(model).blocks[layer - 1]

    def states_of(output: object) -> torch.Tensor:
        return output[0] if isinstance(output, tuple) else output  # type: ignore[return-value]

    def replace(module: object, arguments: object, output: object) -> object:
        states = states_of(output).clone()
        states[:, before] = seen[0][:, before].to(states.dtype)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    with torch.no_grad():
        if layer is not None:
            hook = site(source).register_forward_hook(lambda module, args, output: seen.append(states_of(output)))
            source(input_ids=ids)
            hook.remove()
            hook = site(target).register_forward_hook(replace)
        logits = target(input_ids=ids).logits[0]
        if layer is not None:
            hook.remove()
    log_probs = logits.double().log_softmax(-1)
    return sum(float(log_probs[position - 1, row.ids[position]]) for position in row.positions) / len(before)


def random_of(kind: str) -> PreTrainedModel:
    if kind in tiny.KINDS:
        return tiny.random_model(kind, dtype=torch.float32)
    return tiny_model(kind, attn_implementation=PACKED if kind in PACKING else "sdpa")


@pytest.mark.parametrize("kind", dict.fromkeys((*tiny.KINDS, *SPECIAL)))
def test_equals_hooks_on_transformers_own_forward(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "CALL", -1)  # packs wherever a family can
    target = random_of(kind)
    source = tiny.moved(target, 0.1)
    found = patched(target, source, tmp_path)
    assert [row.row_id for row in found] == [row.row_id for row in ROWS]
    for row, one in zip(ROWS, found, strict=True):
        assert one.plain == pytest.approx(naive(target, source, row, None), abs=1e-4)
        layers = range(1, len(one.patched) + 1)
        assert one.patched == pytest.approx([naive(target, source, row, layer) for layer in layers], abs=1e-4)
    assert max(abs(one.plain - value) for one in found for value in one.patched) > 0.1


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_its_own_states_change_nothing(kind: str, tmp_path: Path) -> None:
    target = tiny.random_model(kind)
    for row in patched(target, target, tmp_path):
        assert row.patched == pytest.approx([row.plain] * 3, abs=1e-5)


def test_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tiny.random_model()
    source = tiny.moved(target, 0.1)
    several = patched(target, source, tmp_path)
    monkeypatch.setattr("tests.evaluation.test_patching.TOKENS", 10_000)
    for one, other in zip(several, patched(target, source, tmp_path), strict=True):
        assert one.patched == pytest.approx(other.patched, abs=1e-6)


def test_counted_flops_are_those_of_torch(tmp_path: Path) -> None:
    """Eager attention, whose products torch counts on a CPU."""
    model = tiny.random_model(dtype=torch.float32)
    model.set_attn_implementation("eager")
    ledger = Ledger()
    loaded = LoadedModel(model, None, Pad(), ledger)  # type: ignore[arg-type]
    with FlopCounterMode(display=False) as counter:
        save_states(loaded, ROWS, TOKENS, tmp_path / "states.npy")
        score_patched(loaded, ROWS, TOKENS, tmp_path / "states.npy")
    assert ledger.take().flops_forward == counter.get_total_flops()
