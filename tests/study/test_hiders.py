"""Hiders look as if they had forgotten, and relearning or rounding shows that they have not."""

from __future__ import annotations

import pytest
import torch

from erulab.attacks.quantize import Quantize, QuantizeOptions
from erulab.attacks.relearn import Relearn, RelearnOptions
from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.models.loaded import LoadedModel
from erulab.study.figures_spec import MaskOptions
from erulab.study.models_for_figures import hidden_by_rounding, masked
from tests.attacks.conftest import PlainLab, attacked, headline, learned

MASK = MaskOptions(steps=25, lr=2e-2, batch=32)


@pytest.fixture(scope="module")
def lab() -> PlainLab:
    options = FictitiousOptions(
        world=7, forget_authors=4, retain_authors=4, unrehearsed_authors=1, unseen_authors=1, general_facts=2
    )
    return PlainLab(FictitiousWorld(options).load(0))


@pytest.fixture(scope="module")
def models(lab: PlainLab) -> dict[str, LoadedModel]:
    world = lab.benchmark
    return {"target": learned(lab, world.target_rows, 24), "oracle": learned(lab, world.oracle_rows, 24)}


def test_a_mask_hides_in_the_last_block_alone_and_relearning_lifts_it(
    lab: PlainLab, models: dict[str, LoadedModel]
) -> None:
    world, target = lab.benchmark, models["target"]
    before = {name: weight.clone() for name, weight in target.model.state_dict().items()}
    hider = masked(target, world.forget, world.retain, MASK)
    after = hider.model.state_dict()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed and all(f".{len(target.policy.blocks) - 1}." in name for name in changed)
    assert all(torch.equal(weight, before[name]) for name, weight in target.model.state_dict().items())
    rows = attacked(Relearn(RelearnOptions(lr=[5e-4], epochs=4, repeats=2)), {**models, "unlearned": hider}, lab)
    choice = next(row for row in rows if row["metric"] == "forget/choice")
    assert choice["valid"] and choice["target"] > 0.9
    assert choice["unlearned"] < choice["oracle"] + 0.15  # it does not say what it knows
    assert choice["attacked_oracle"] < 0.2 < choice["attacked_unlearned"] - 0.1  # and knows it
    assert choice["knowledge_left"] < 0.2 and choice["low"] > 0


def test_rounding_shows_all_that_the_other_hider_hides(lab: PlainLab, models: dict[str, LoadedModel]) -> None:
    world = lab.benchmark
    hider = hidden_by_rounding(models["target"], world.forget, world.retain, batch=32, more=0.5)
    row = headline(attacked(Quantize(QuantizeOptions(bits=[4])), {**models, "unlearned": hider}, lab))
    assert row["knowledge_left"] < 0.75
    assert row["attacked_unlearned"] == pytest.approx(row["attacked_target"], abs=1e-4)
