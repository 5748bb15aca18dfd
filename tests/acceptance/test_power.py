"""On the embedded default: relearning brings back knowledge that a mask only hides, in a model that the user gives."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.evaluation.suites import forget_suites
from erulab.models.loaded import LoadedModel
from erulab.models.loading import load_folder, save_folder
from erulab.models.lora import merged, with_lora
from erulab.models.options import Attention
from erulab.tokens.batch import collate
from erulab.tokens.templates import NO_OVERRIDES
from tests.pipeline.conftest import finished

FOLDER = os.environ.get("ERULAB_QUICKSTART")
pytestmark = pytest.mark.skipif(
    FOLDER is None, reason="ERULAB_QUICKSTART names no output folder of launch/quickstart.sh; .ci/run sets it"
)


def quickstart_models() -> dict[str, Path]:
    """Returns the quickstart's target and oracle; the target is the one that learned more tokens."""
    entries = Path(str(FOLDER)).glob(".cache/learned/*/entry.json")
    tokens = {file.parent: json.loads(file.read_text())["costs"]["tokens"] for file in entries}
    oracle, target = sorted(tokens, key=lambda folder: tokens[folder])
    return {"target": target / "model", "oracle": oracle / "model"}


def masked(target: LoadedModel) -> LoadedModel:
    """Returns the target with merged adapters of rank 1 that lower the probability of the forget values.

    The adapters are trained for 15 steps, so every fact is still in the weights.
    """
    world = FictitiousWorld(FictitiousOptions()).load(0)
    subject = with_lora(target, rank=1, alpha=8, seed=0)
    chat = subject.chat
    values = [
        chat.encode(row, span=(len(row.prefix), len(row.prefix + row.value))) for row in forget_suites(world)[0].rows
    ]
    kept = [chat.encode(row) for row in world.retain]
    optimizer = torch.optim.AdamW([p for p in subject.model.parameters() if p.requires_grad], lr=3e-3)
    generator = torch.Generator().manual_seed(0)

    def random_batch(rows: list[Any]) -> Any:
        picked = torch.randperm(len(rows), generator=generator)[:64].tolist()
        return collate([rows[i] for i in picked], subject.pad_id)

    for _ in range(15):
        held_back = subject.policy.row_nll(random_batch(values)).clamp(max=6.0).mean()
        (subject.policy.token_nll(random_batch(kept)).mean() - held_back).backward()
        optimizer.step()
        optimizer.zero_grad()
    return replace(merged(subject), ledger=target.ledger)


def test_relearning_brings_back_knowledge_that_is_only_hidden(tmp_path: Path) -> None:
    known = quickstart_models()
    hider = masked(load_folder(str(known["target"]), Attention.sdpa, NO_OVERRIDES))
    save_folder(hider, tmp_path / "hider")
    run = finished(
        [
            "stages=[attack]",
            f"model.unlearned={tmp_path / 'hider'}",
            f"model.target={known['target']}",
            f"model.oracle={known['oracle']}",
            "dataset=fictitious",
            "attack=relearn",
            "tracker=none",
            f"output={tmp_path / 'outputs'}",
        ]
    )
    assert run.code == 0
    row = next(row for row in run.read("attacks.json") if row["headline"])
    assert row["knowledge_left"] < 0.45  # by itself it looks mostly forgotten
    assert (
        row["valid"]
        and row["knowledge_left_attacked"] > row["knowledge_left"] + 0.2
        and row["low"] > row["knowledge_left"]
    )
    assert min(row["repeats"]) > row["knowledge_left"]  # whichever half is relearned
