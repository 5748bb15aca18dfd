from __future__ import annotations

import subprocess
import sys

import pytest
from torch.utils.flop_counter import FlopCounterMode

from erulab.costs.flops import Backward
from erulab.costs.ledger import Ledger, peak_memory
from erulab.costs.shapes import ModelShape
from erulab.models.policy import Policy
from tests.costs.families import CONFIGS, batch_of, model_of

SHAPE = ModelShape.from_config(CONFIGS["llama"])


def test_what_was_run_is_what_torch_counts() -> None:
    ledger, policy = Ledger(SHAPE), Policy(model_of(CONFIGS["llama"], "eager"))
    with FlopCounterMode(display=False) as ahead:
        losses = [policy(batch_of(lengths, 5))[0].sum() for lengths in ([12, 9], [20])]
    with FlopCounterMode(display=False) as back:
        losses[0].backward()
    ledger.add_forward([12, 12], 10)
    ledger.add_forward([20], 5)
    ledger.add_backward([12, 12], 10, Backward.full)
    found = ledger.summary()
    assert (found["tokens"], found["supervised_tokens"]) == (44, 15)
    assert found["flops_forward"] == ahead.get_total_flops()
    assert found["flops_backward"] == back.get_total_flops()
    assert found["flops_adversary"] == 0


def test_an_adversarys_own_runs_stand_apart() -> None:
    plain, ledger = Ledger(SHAPE), Ledger(SHAPE)
    plain.add_forward([8, 8], 0)
    plain.add_backward([8, 8], 0, Backward.activations, layer=1)
    ledger.add_forward([8, 8], 0, prompts=2, adversary=True)
    ledger.add_backward([8, 8], 0, Backward.activations, layer=1, adversary=True)
    found, same = ledger.summary(), plain.summary()
    assert found["prompts"] == 2
    assert found["flops_adversary"] == same["flops_forward"] + same["flops_backward"] > 0
    assert found["tokens"] == found["flops_forward"] == found["flops_backward"] == 0


def test_seconds_add_up_by_stage() -> None:
    ledger = Ledger(SHAPE)
    ledger.add_seconds("target", 2.0)
    ledger.add_seconds("target", 1.5)
    with pytest.raises(RuntimeError), ledger.timed("unlearn"):
        raise RuntimeError
    seconds = ledger.summary()["seconds"]
    assert seconds["target"] == 3.5
    assert 0 < seconds["unlearn"] < 1


def test_peak_memory_is_this_processes_own_high_water_mark_in_bytes() -> None:
    held = bytearray(b"x") * 300_000_000  # of the parent: getrusage would count it for the child
    code = (
        "from erulab.costs.ledger import peak_memory\n"
        "before = peak_memory('cpu'); block = bytearray(b'x') * 200_000_000; del block\n"
        "print(peak_memory('cpu') - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == pytest.approx(200e6, rel=0.1)
    assert peak_memory("cpu") > len(held)
