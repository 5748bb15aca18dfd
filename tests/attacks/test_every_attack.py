"""What holds for every attack: it changes no model, gives the same bits again, and keeps K of target and oracle."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from erulab.attacks.base import Attack
from erulab.models.loaded import LoadedModel
from erulab.registry import attacks
from tests.attacks.conftest import PlainLab, attacked
from tests.cases import ATTACKS, AttackCase

Models = dict[str, LoadedModel]


def rows_of_case(case: AttackCase, models: Models, lab: PlainLab) -> list[dict[str, Any]]:
    entry = attacks[case.attack]
    return attacked(entry.factory(entry.options(**case.options)), models, lab)


def untimed(rows: list[dict[str, Any]]) -> str:
    plain = [{**row, "seconds": 0, "attempts": [{**one, "seconds": 0} for one in row["attempts"]]} for row in rows]
    return json.dumps(plain)


def test_every_attack_is_in_the_table() -> None:
    assert {case.attack for case in ATTACKS} == set(attacks.names())


@pytest.mark.parametrize("case", ATTACKS, ids=lambda case: case.attack)
def test_no_model_is_changed_and_the_same_attack_gives_the_same_bits(
    case: AttackCase, models: Models, lab: PlainLab
) -> None:
    before = {role: copy.deepcopy(model.model.state_dict()) for role, model in models.items()}
    state = torch.get_rng_state()
    first = rows_of_case(case, models, lab)
    assert torch.equal(torch.get_rng_state(), state)  # every generator is its own
    assert untimed(rows_of_case(case, models, lab)) == untimed(first)
    for role, model in models.items():
        assert not model.model.training
        assert all(torch.equal(weight, before[role][name]) for name, weight in model.model.state_dict().items())
    for row in first:
        assert row["steps"] >= 0 and row["flops"] >= 0 and row["seconds"] >= 0
    assert sum(row["headline"] for row in first) == len({json.dumps(row["setting"]) for row in first})
    json.dumps(first, allow_nan=False)
    for row in first:
        # Every row but the retain suite's says whether it counts, and why if it does not.
        assert (row["reason"] is None) == (row["standing"] in ("counts", None))
        assert (row["standing"] == "undefined") <= (row["knowledge_left_attacked"] is None or row["facts"] == 1)


def test_an_attack_must_state_its_settings_and_attempts() -> None:
    class WithoutSettings(Attack):
        def attempts(self, subject: LoadedModel, setting: Any, lab: Any) -> Any:
            return iter(())

    class WithoutAttempts(Attack):
        def settings(self, benchmark: Any, seed: int) -> Any:
            return [{}]

    for attack, missing in ((WithoutSettings, "settings"), (WithoutAttempts, "attempts")):
        with pytest.raises(TypeError, match=missing):
            attack()


@pytest.mark.parametrize("case", ATTACKS, ids=lambda case: case.attack)
def test_the_target_keeps_all_and_the_oracle_hides_nothing(case: AttackCase, models: Models, lab: PlainLab) -> None:
    """If the target stands in for the unlearned model, K after every attack is 1; if the oracle does, it is 0."""
    for role, k in (("target", 1.0), ("oracle", 0.0)):
        for row in rows_of_case(case, {**models, "unlearned": models[role]}, lab):
            if row["headline"]:
                # Defined for every attack of the table in this world; a None fails here.
                assert row["knowledge_left_attacked"] == pytest.approx(k, abs=1e-9)
                if row["facts"] == 1:  # a probe learns from the others of this small world
                    assert (row["low"], row["high"], row["reason"]) == (None, None, "one fact gives no interval")
                else:
                    assert (row["low"], row["high"]) == pytest.approx((k, k), abs=1e-9)


@pytest.mark.parametrize("case", ATTACKS, ids=lambda case: case.attack)
def test_it_says_whether_its_attempts_are_changed_models(case: AttackCase, models: Models, lab: PlainLab) -> None:
    entry = attacks[case.attack]
    attack = entry.factory(entry.options(**case.options))
    setting = attack.settings(lab.benchmark, 0)[0]
    attempt = next(iter(attack.attempts(models["unlearned"], setting, replace(lab, models=models))))
    assert (attempt.changed is not None) is entry.factory.changes_weights
