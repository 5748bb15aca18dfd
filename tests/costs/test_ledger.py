from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from erulab.adversaries.hooks import edit_states, module_at_layer
from erulab.costs.flops import TokenCounts
from erulab.costs.ledger import Ledger, Spent, peak_memory
from erulab.costs.shapes import NO_ADAPTERS, ModelShape
from erulab.models import packing
from erulab.models.attention import PACKED
from erulab.models.meter import Meter
from erulab.models.policy import Policy
from tests.costs.families import CONFIGS, batch_of, model_of

SHAPE = ModelShape.from_config(CONFIGS["llama"])


def test_ledger_agrees_with_torch_counter() -> None:
    """Forwards, the backward that follows a forward with gradients, and nothing where there are none."""
    ledger = Ledger()
    policy = Policy(model_of(CONFIGS["llama"], "eager"), ledger)
    with FlopCounterMode(display=False) as ahead:
        loss = policy.token_nll(batch_of([12, 9], 5)).sum()
        with torch.no_grad():
            policy(batch_of([20], 5))
    with FlopCounterMode(display=False) as back:
        loss.backward()
    found = ledger.take()
    assert (found.tokens, found.supervised_tokens) == (44, 15)
    assert found.flops_forward == ahead.get_total_flops()
    assert found.flops_backward == back.get_total_flops()
    assert found.flops_adversary == 0
    assert ledger.take() == Spent()


def test_work_of_an_adversary_is_counted_apart() -> None:
    ledger = Ledger()
    policy = Policy(model_of(CONFIGS["llama"], "eager"), ledger)
    delta = torch.zeros(2, 12, SHAPE.width, requires_grad=True)
    perturbed = edit_states(policy, [(module_at_layer(policy, 1), lambda states: states + delta)])
    with ledger.adversary(), perturbed, FlopCounterMode(display=False) as counter:
        nll = policy.token_nll(batch_of([12, 9], 5))
        policy.state_gradient(nll.sum(), delta, 1)
        with policy.skip_blocks_below(1):
            policy(batch_of([12, 9], 5))
    found = ledger.take()
    assert found.flops_adversary == counter.get_total_flops() == found.plain()["flops"]
    assert found.tokens == found.flops_forward == found.flops_backward == 0


def test_packed_rows_are_counted_as_they_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the linear layers of a model whose attention costs nothing beside them, torch counts the packed tokens."""
    monkeypatch.setattr(packing, "CALL", -1)
    ledger, config = Ledger(), CONFIGS["llama"]
    policy = Policy(model_of(config, PACKED), ledger)
    batch = batch_of([20, 20, 9], 5)
    same = dataclasses.replace(batch, input_ids=batch.input_ids[:1].repeat(3, 1))  # one opening
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        policy(same)
    found = ledger.take()
    assert found.tokens == 20
    shape = ModelShape.from_config(config)
    # The counter knows no attention kernel of CPUs: 9 common tokens see themselves, 11 more see all 20.
    attention = 4 * shape.layers * shape.heads * shape.head_dim * (9 * 9 + 11 * 20)
    assert found.flops_forward == counter.get_total_flops() + attention


def test_a_model_of_an_unknown_type_counts_tokens() -> None:
    model, ledger = model_of(CONFIGS["llama"]), Ledger()
    model.config.model_type = "unheard of"
    meter = Meter(model, ledger, NO_ADAPTERS)
    meter.forward(TokenCounts.of([4], 2))
    meter.training(TokenCounts.of([4], 2))
    found = ledger.take()
    assert (found.tokens, found.supervised_tokens) == (4, 2)
    plain = (found + Spent(tokens=1)).plain()
    assert plain["tokens"] == 5
    assert (
        plain["flops_forward"] is plain["flops_backward"] is plain["flops"] is None
    )  # unknown, and so is every sum with them
    assert Spent.read(plain).plain() == plain


def test_peak_memory_is_this_processes_own_high_water_mark_in_bytes() -> None:
    held = bytearray(b"x") * 300_000_000  # held by the parent: getrusage would count it for the child
    code = (
        "from erulab.costs.ledger import peak_memory\n"
        "before = peak_memory('cpu'); block = bytearray(b'x') * 200_000_000; del block\n"
        "print(peak_memory('cpu') - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == pytest.approx(200e6, rel=0.1)
    assert peak_memory("cpu") > len(held)
