"""The relearning attack in whole runs: adapters, several rates, a learning curve."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from erulab.attacks.base import FinetuneSettings
from erulab.stages.attack_lab import AttackLab
from tests.pipeline.conftest import Finished, Runner

RANK = 2
# A seed of its own gives a run folder of its own, with the target and oracle of the other tests.
COMMON = ("seed=5", "attack=relearn", f"attack.relearn.lora_rank={RANK}", "attack.relearn.repeats=1")


def traces(finished: Finished) -> dict[tuple[int, str], list[dict[str, Any]]]:
    """Maps (points, model's key) to the attempts in trace.json."""
    found = {}
    for file in (finished.rundir.path.parents[1] / ".cache" / "attacked").glob("*/trace.json"):
        depends_on = json.loads((file.parent / "entry.json").read_text())["depends_on"]
        if depends_on["seed"] == 5 and depends_on["attack"]:
            found[depends_on["attack"]["points"], depends_on["model"]] = json.loads(file.read_text())
    return found


def test_a_grid_of_adapters_with_a_learning_curve(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], set[str]]] = []
    finetune = AttackLab.finetune

    def watched(lab: AttackLab, subject: Any, rows: Any, settings: FinetuneSettings) -> Iterator[tuple[int, Any]]:
        before = {name: weight.clone() for name, weight in subject.model.state_dict().items()}
        trained: set[str] = set()
        for step, model in finetune(lab, subject, rows, settings):
            after = {name: weight.clone() for name, weight in model.model.state_dict().items()}
            adapters = {name for name, weight in model.model.named_parameters() if "lora" in name}
            if adapters:  # a point of the curve before the last
                trained = {name for name, weight in model.model.named_parameters() if weight.requires_grad}
                assert trained == adapters
            else:
                seen.append((before, after, trained))
            yield step, model

    monkeypatch.setattr(AttackLab, "finetune", watched)
    curve = run(*COMMON, "attack.relearn.lr=[1e-4,3e-3]", "attack.relearn.points=2")
    assert curve.code == 0, curve.read("exit.json")
    monkeypatch.undo()
    assert len(seen) == 3 * 2
    for before, after, trained in seen:
        assert trained and before.keys() == after.keys()  # merged: the layout of the model itself
        changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
        assert changed and all("proj" in name for name in changed)
        for name in changed:
            values = torch.linalg.svdvals((after[name] - before[name]).double())
            assert values[RANK:].max() < 1e-3 * values[0]

    row = next(row for row in curve.read("attacks.json") if row["headline"])
    assert row["setting"]["lr"] == [1e-4, 3e-3] and row["setting"]["lora_rank"] == RANK
    steps = [one["chosen"]["steps"] for one in row["attempts"]]
    assert len(steps) == 4 and steps[:2] == steps[2:] and steps[0] == round(steps[1] / 2)
    assert all(one.keys() == {"lr", "steps"} for one in row["chosen"]["unlearned"])
    assert row["savings"].keys() == {"tau", "steps_unlearned", "steps_oracle", "savings"}
    choice = next(one for one in curve.read("attacks.json") if one["metric"] == "forget/choice")
    assert (choice["open_unlearning_r"] is None) == ("open_unlearning_r undefined" in choice["note"])

    # The same rate without a curve ends at the same scores, bit for bit.
    alone = run(*COMMON, "attack.relearn.lr=[3e-3]")
    found = traces(alone)
    assert len(found) == 2 * 3
    for (points, model), attempts in found.items():
        if points == 1:
            *_, last = found[2, model]
            (only,) = attempts
            assert only["rows"] == last["rows"] and only["utility"] == last["utility"]
            assert only["chosen"] == {} and last["chosen"] == {"lr": 3e-3, "steps": only["steps"]}
