"""Three models of a small world that know, half know and never knew its forget facts, and a lab to attack them in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from erulab.data.encoding import collate
from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.rows import Benchmark, Row
from erulab.models.loaded import LoadedModel
from erulab.models.tiny import TinyModel, TinyOptions
from erulab.registry import load_plugins

load_plugins()


@dataclass
class PlainLab:
    """A lab that trains by ten lines of its own: AdamW on the mean NLL of batches in row order."""

    benchmark: Benchmark
    seed: int = 0

    def finetune(
        self, subject: LoadedModel, rows: Sequence[Row], *, lr: float | None, epochs: float, batch: int, **_: Any
    ) -> LoadedModel:
        optimizer = torch.optim.AdamW(subject.model.parameters(), lr=2e-4 if lr is None else lr, weight_decay=0.0)
        encoded = [subject.chat.encode(row.id, row.prompt, row.response) for row in rows]
        for _epoch in range(int(epochs)):
            for first in range(0, len(encoded), batch):
                nll, _kl = subject.policy(collate(encoded[first : first + batch], subject.pad_id))
                nll.mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        return subject


def learned(lab: PlainLab, rows: Sequence[Row], epochs: int) -> LoadedModel:
    loaded = TinyModel(TinyOptions(layers=2, width=48, heads=2)).load(lab.benchmark, seed=3)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    return lab.finetune(loaded, [rows[i] for i in order], lr=5e-3, epochs=epochs, batch=24)


@pytest.fixture(scope="session")
def world() -> Benchmark:
    options = FictitiousOptions(
        world=7, forget_authors=3, retain_authors=2, unrehearsed_authors=1, unseen_authors=1, general_facts=2
    )
    return FictitiousWorld(options).load(0)


@pytest.fixture(scope="session")
def lab(world: Benchmark) -> PlainLab:
    return PlainLab(world)


@pytest.fixture(scope="session")
def models(world: Benchmark, lab: PlainLab) -> dict[str, LoadedModel]:
    """The unlearned model stands between the two: it saw the forget rows too seldom to know them well."""
    return {
        "target": learned(lab, world.target_rows, 24),
        "unlearned": learned(lab, world.target_rows, 8),
        "oracle": learned(lab, world.oracle_rows, 24),
    }
