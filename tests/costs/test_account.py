"""Costs of products: summed over processes and products, written to files; and the peak memory of single stages."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time

import pytest

from erulab.costs import account
from erulab.costs.account import Costs
from erulab.costs.flops import TokenCounts
from erulab.costs.ledger import Ledger, Spent

ONE = Costs(3.0, Spent(10, 4, 100, 200, 50), 7_000)
TWO = Costs(5.0, Spent(20, 6, 300, 600, 0), 4_000)


def test_processes_share_the_time_and_products_do_not() -> None:
    together, in_turn = account.sum_over_processes([ONE, TWO]), account.sum_over_products([ONE, TWO])
    assert together == Costs(5.0, Spent(30, 10, 400, 800, 50), 7_000)
    assert in_turn == Costs(8.0, together.spent, 7_000)
    assert together.plain() == {
        "seconds": 5.0,
        "tokens": 30,
        "supervised_tokens": 10,
        "flops_forward": 400,
        "flops_backward": 800,
        "flops_adversary": 50,
        "flops": 1250,
        "peak_memory_bytes": 7_000,
    }
    assert together.of_training() == {
        "cost/tokens": 30,
        "cost/flops": 1250,
        "cost/flops_adversary": 50,
        "cost/seconds": 5.0,
        "cost/peak_memory_gb": 7e-6,
    }


def test_costs_survive_json_also_with_unknown_flops() -> None:
    assert Costs.read(json.loads(json.dumps(ONE.plain()))) == ONE
    unknown = account.sum_over_products([ONE, Costs(1.0, Spent(1, 1, math.nan, math.nan), 1)])
    text = json.dumps(unknown.plain(), allow_nan=False)
    again = Costs.read(json.loads(text))
    assert again.plain() == unknown.plain() and again.spent.tokens == 11
    assert again.of_training()["cost/flops"] is None and again.of_training()["cost/flops_adversary"] == 50


def test_work_before_start_belongs_to_another_product() -> None:
    ledger = Ledger()
    ledger.add_forward(TokenCounts.of([40], 2), 0.0)
    account.start(ledger, "cpu")
    ledger.add_forward(TokenCounts.of([4], 2), 0.0)
    ledger.charge(Spent(tokens=100))
    found = account.stop(ledger, "cpu")
    assert found.spent.tokens == 104
    assert ledger.spent == Spent() and ledger.seconds < 1
    assert ledger.done.tokens == 44


def test_a_continued_product_costs_what_its_checkpoint_says_and_the_steps_after_it() -> None:
    """What a process did before it read the checkpoint is work of its own, but no cost of the product."""
    ledger = Ledger()
    account.start(ledger, "cpu")
    ledger.add_forward(TokenCounts.of([30], 2), 0.0)  # repeated: the checkpoint has counted it
    ledger.resume(Spent(tokens=100), 50.0)
    ledger.add_forward(TokenCounts.of([4], 2), 0.0)
    time.sleep(0.01)
    found = account.stop(ledger, "cpu")
    assert found.spent.tokens == 104 and 50.01 <= found.seconds < 51
    assert ledger.done.tokens == 34


def test_each_stage_has_a_peak_of_its_own() -> None:
    """Runs in a process of its own; skipped in containers that do not let a process reset its peak."""
    code = """
from pathlib import Path
from erulab.costs.ledger import forget_peak_memory, peak_memory
block = bytearray(b"x") * 300_000_000
del block
before = peak_memory("cpu")
forget_peak_memory("cpu")
try:
    Path("/proc/self/clear_refs").write_text("5")
except OSError:
    print("not here")
    raise SystemExit
block = bytearray(b"x") * 100_000_000
print(before - peak_memory("cpu"))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    if said == "not here":
        pytest.skip("this system does not let a process reset its peak")
    assert int(said) == pytest.approx(200e6, rel=0.1)
