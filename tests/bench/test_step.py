"""The step benchmark: its plain way is written from the formulas alone, so equal losses verify those of erulab."""

from __future__ import annotations

import re

import pytest
import torch

from erulab.bench import __main__ as bench
from erulab.bench import measure, step

TINY = (
    "model=tiny",
    "dataset=fictitious",
    "dataset.forget_authors=3",
    "dataset.retain_authors=3",
    "dataset.unrehearsed_authors=1",
    "dataset.unseen_authors=1",
    "dataset.general_facts=2",
    "trainer.lr=1e-3",
)


def test_every_case_has_the_losses_of_the_plain_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["step", *TINY, "--rows", "4", "--steps", "2"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " 4+4 " in line]
    assert [line.split()[0] for line in lines] == list(step.CASES)
    for line in lines:
        cells = dict(zip(step.COLUMNS, line.split()[2:], strict=True))
        assert float(cells["loss differs"]) < 1e-4, line
        assert all(float(value) > 0 for name, value in cells.items() if name != "loss differs"), line


def test_a_wrong_key_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["step", *TINY, "trainer.lrr=1"]) == 2
    assert re.fullmatch(r"[^\n]*trainer\.lr[^\n]*\n", capsys.readouterr().err)


def test_peak_memory_counts_bytes_held_at_once() -> None:
    def work() -> None:
        first = torch.empty(1000, 1000)
        second = torch.empty(2000, 1000)
        del first
        third = torch.empty(500, 1000)
        del second, third

    assert measure.peak_bytes(work) == 4 * 3_000_000


def test_matrix_products_are_counted() -> None:
    linear, x = torch.nn.Linear(64, 32), torch.ones(8, 64)
    assert measure.flops(lambda: linear(x).sum().backward()) == 2 * 2 * 8 * 64 * 32
