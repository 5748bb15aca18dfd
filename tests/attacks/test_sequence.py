"""Attack sequences: a sequence of one is that attack, and each step works on the model of the previous one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from erulab.attacks.base import Repeat
from erulab.attacks.quantize import Quantize, QuantizeOptions
from erulab.attacks.relearn import Relearn, RelearnOptions
from erulab.attacks.sequence import AttackSequence, SequenceOptions, every_options
from erulab.errors import ConfigError
from erulab.models.loaded import LoadedModel
from erulab.registry import attacks
from tests.attacks.conftest import PlainLab, attacked, headline

Models = dict[str, LoadedModel]
SHORT: dict[str, Any] = {"lr": [2e-3], "epochs": 2, "repeats": 1}


def figures(rows: list[dict[str, Any]]) -> str:
    own = ("attack", "setting", "seconds", "open_unlearning_r", "note")
    return json.dumps([{key: value for key, value in row.items() if key not in own} for row in rows])


def test_a_sequence_of_one_is_that_attack(models: Models, lab: PlainLab) -> None:
    alone = attacked(Relearn(RelearnOptions(**SHORT)), models, lab)
    one = attacked(AttackSequence(SequenceOptions(steps=["relearn"], options={"relearn": SHORT})), models, lab)
    assert figures(one) == figures(alone)
    assert one[0]["setting"]["relearn.samples"] == alone[0]["setting"]["samples"]


def test_rounding_to_8_bits_first_hardly_matters(models: Models, lab: PlainLab) -> None:
    options = SequenceOptions(options={"quantize": {"bits": [8]}, "relearn": SHORT})
    both = headline(attacked(AttackSequence(options), models, lab))
    alone = headline(attacked(Relearn(RelearnOptions(**SHORT)), models, lab))
    rounded = headline(attacked(Quantize(QuantizeOptions(bits=[8])), models, lab))
    change = alone["attacked_oracle"] - alone["oracle"]
    assert abs(both["attacked_oracle"] - alone["attacked_oracle"]) < 0.2 * abs(change)
    assert both["attacked_oracle"] != alone["attacked_oracle"]  # but it was rounded
    assert both["steps"] == alone["steps"] > rounded["steps"] == 0
    assert both["n"] == alone["n"] < rounded["n"]


def test_what_one_step_relearns_no_other_is_scored_on(lab: PlainLab) -> None:
    attack = AttackSequence(SequenceOptions(steps=["relearn", "quantize"], options={"relearn": SHORT}))
    eight, four = attack.settings(lab.benchmark, 0)
    assert (eight["quantize.bits"], four["quantize.bits"]) == (8, 4)
    scored = attack.scored(four, lab.benchmark, Repeat(0))
    assert scored == Relearn(RelearnOptions()).scored({}, lab.benchmark, Repeat(0))


def test_the_second_step_is_given_what_the_first_left(models: Models, lab: PlainLab) -> None:
    attack = AttackSequence(SequenceOptions(steps=["relearn", "quantize"], options={"relearn": SHORT}))
    _, setting = attack.settings(lab.benchmark, 0)
    lab = replace(lab, models=models)
    (attempt,) = attack.attempts(models["oracle"], setting, lab)
    (relearned,) = attack.steps[0].attempts(models["oracle"], {"samples": setting["relearn.samples"]}, lab)
    assert relearned.changed is not None and attempt.steps == relearned.steps > 0
    (expected,) = attack.steps[1].attempts(relearned.changed, {"backend": "rtn", "bits": 4}, lab)
    suites = attack.scored(setting, lab.benchmark, lab.repeat)
    assert attempt.score(suites) == expected.score(suites)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": []}, "steps must be a list of different attacks"),
        ({"steps": ["relearn", "relearn"]}, "steps must be a list of different attacks"),
        ({"steps": ["quantise"]}, "got 'quantise' .did you mean quantize"),
        ({"steps": ["sequence"]}, "steps must be attacks out of"),
        ({"options": {"prune": {}}}, "options must be of attacks that attack.sequence.steps names, got 'prune'"),
        ({"options": {"relearn": {"lrs": [1.0]}}}, r"unknown key attack.sequence.options.relearn.lrs .did you mean lr"),
        ({"options": {"relearn": {"lr": [-1.0]}}}, r"attack.sequence.options.relearn.lr must be a list of rates >= 0"),
        (
            {"options": {"relearn": {"epochs": "x"}}},
            r"attack.sequence.options.relearn.epochs must be a number, got 'x'",
        ),
        ({"options": {"relearn": 3}}, "attack.sequence.options.relearn must be options by name, got 3"),
        ({"options": 3}, "options must be null or options by attack"),
    ],
)
def test_wrong_options_are_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message) as refused:
        SequenceOptions(**changes)
    assert "\n" not in str(refused.value)


def test_only_the_last_step_may_leave_weights_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks["quantize"].factory, "changes_weights", False)
    SequenceOptions(steps=["relearn", "quantize"])
    with pytest.raises(ValueError, match="steps must be attacks that change weights, except for the last .*'quantize'"):
        SequenceOptions(steps=["quantize", "relearn"])


def test_a_sequence_s_steps_are_among_a_run_s_options() -> None:
    chosen = {"quantize": QuantizeOptions(), "sequence": SequenceOptions(options={"relearn": SHORT})}
    assert list(every_options(chosen)) == [QuantizeOptions(), QuantizeOptions(), RelearnOptions(**SHORT)]
