"""Every plugin that trains or attacks has a line in the contract table, so no plugin goes without the contract tests."""

from __future__ import annotations

from erulab.registry import adversaries, attacks, load_plugins, methods, rewards
from tests.cases import ATTACKS, CASES

load_plugins()
NOT_TRAINED = {"none", "retrain"}  # no losses: the target itself, and the oracle


def test_every_method_reward_adversary_and_attack_is_in_the_table() -> None:
    assert {case.method for case in CASES} == set(methods.names()) - NOT_TRAINED
    assert {case.reward for case in CASES} == set(rewards.names())
    assert {case.adversary for case in CASES} == set(adversaries.names())
    assert {case.attack for case in ATTACKS} == set(attacks.names())
