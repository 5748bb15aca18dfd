"""The method in the README is one: it composes, and its loss is the hinge that its docstring describes."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from erulab.config.compose import compose_config
from erulab.methods.needs import Step
from erulab.methods.seen import ForgetRows, RowNLL
from erulab.registry import methods
from tests.pages.pages import ROOT, blocks


def test_the_readmes_method_is_a_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = blocks((ROOT / "README.md").read_text(), "python")
    assert len([line for line in block.splitlines() if line.strip()]) <= 16
    (tmp_path / "my_method.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(methods, "_entries", dict(methods._entries))  # the name is gone after this test
    config = compose_config(["plugins=[my_method]", "method=ceiling", "method.ceiling=2"])
    method = methods.build(config.method)
    nll = torch.tensor([1.5, 6.0])
    losses, logged = method.losses(ForgetRows(RowNLL(nll * 4, torch.tensor([4.0, 4.0]))), None, Step(0, 1))
    assert losses.tolist() == [0.5, 0.0] and logged["nll"].tolist() == nll.tolist()
    importlib.invalidate_caches()
