"""The power of attacks: they bring back knowledge that is only hidden, and find nothing if there is nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from erulab.attacks.quantize import Quantize, QuantizeOptions
from erulab.attacks.relearn import Relearn, RelearnOptions
from erulab.evaluation.suites import forget_suites
from erulab.models.loaded import LoadedModel
from erulab.tokens.batch import collate
from tests.attacks.conftest import PlainLab, attacked, headline, learned

ATTACK = RelearnOptions(lr=[5e-4], epochs=4, repeats=2)


@pytest.fixture(scope="module")
def hider(models: dict[str, LoadedModel], lab: PlainLab) -> LoadedModel:
    """The target rounded to 4 bits, each weight then moved by less than half a level, away from the forgotten values:
    rounding takes exactly that back."""
    masked = rounded(models["target"], lab)
    policy, levels = masked.policy, {name: weight.clone() for name, weight in masked.model.named_parameters()}
    rows = [
        masked.chat.encode(row, span=(len(row.prefix), len(row.prefix + row.value)))
        for suite in forget_suites(lab.benchmark)
        for row in suite.rows
    ]
    gradients = torch.autograd.grad(policy.row_nll(collate(rows, masked.pad_id)).mean(), list(policy.parameters()))
    with torch.no_grad():
        for (name, weight), gradient in zip(masked.model.named_parameters(), gradients, strict=True):
            if "proj" in name:
                scale = levels[name].abs().amax(1, keepdim=True) / 7
                # The largest weight of a channel sets its scale, and stays.
                moves = levels[name].abs() < 6.5 * scale
                weight += 0.45 * scale * gradient.sign() * moves
    return masked


def rounded(subject: LoadedModel, lab: PlainLab) -> LoadedModel:
    own = replace(lab, models={"target": subject})
    (attempt,) = Quantize(QuantizeOptions()).attempts(subject, {"backend": "rtn", "bits": 4}, own)
    assert attempt.changed is not None
    return attempt.changed


def test_rounding_brings_back_what_is_hidden_between_its_levels(
    models: dict[str, LoadedModel], lab: PlainLab, hider: LoadedModel
) -> None:
    row = headline(attacked(Quantize(QuantizeOptions(bits=[4])), {**models, "unlearned": hider}, lab))
    assert row["knowledge_left"] < 0.75  # much of it looks forgotten
    assert row["attacked_unlearned"] == pytest.approx(row["attacked_target"], abs=1e-4)
    assert row["knowledge_left_attacked"] == pytest.approx(1.0, abs=1e-4)


def test_another_model_that_never_saw_the_facts_gives_nothing(models: dict[str, LoadedModel], lab: PlainLab) -> None:
    other = learned(lab, lab.benchmark.oracle_rows, 24, seed=11)
    row = headline(attacked(Relearn(ATTACK), {**models, "unlearned": other}, lab))
    assert row["valid"] and abs(row["knowledge_left_attacked"]) < 0.15
    assert row["low"] < 0.05
