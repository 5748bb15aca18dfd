"""Every method, reward and adversary has a line in the contract table, so none goes without the contract tests."""

from __future__ import annotations

from erulab.registry import adversaries, load_plugins, methods, rewards
from tests.cases import CASES

load_plugins()
# They have no loss on forget rows: the unlearned model is the target, the oracle, or computed from trained weights.
NOT_TRAINED = {"none", "retrain", "task_vector", "undo"}


def test_every_method_reward_and_adversary_is_in_the_table() -> None:
    assert {case.method for case in CASES} == set(methods.names()) - NOT_TRAINED
    assert {case.reward for case in CASES} == set(rewards.names())
    assert {case.adversary for case in CASES} == set(adversaries.names())
