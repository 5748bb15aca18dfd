"""The robustness figures' identities, on scores made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from erulab.attacks.judging.figures import ModelValues, attack_figures, why_not_valid, widened
from erulab.evaluation.knowledge import Values

rng = np.random.default_rng(1)
ROWS = 120
FACTS = [f"fact/{i // 4}" for i in range(ROWS)]


def log_odds(mean: float) -> Values:
    return mean + rng.normal(0, 1, ROWS)


TARGET, UNLEARNED, ORACLE = log_odds(4.0), log_odds(-2.0), log_odds(-3.0)
NO_ATTACK = ModelValues(TARGET, UNLEARNED, ORACLE, TARGET, UNLEARNED, ORACLE)


def constant(*means: float) -> ModelValues:
    return ModelValues(*(np.full(ROWS, mean) for mean in means))


def test_no_attack_leaves_k_as_it_is_and_recovers_nothing() -> None:
    result = attack_figures(NO_ATTACK, FACTS, score=False)
    k = (UNLEARNED.mean() - ORACLE.mean()) / (TARGET.mean() - ORACLE.mean())
    assert result["knowledge_left"] == result["knowledge_left_attacked"] == pytest.approx(k)
    assert result["low"] < k < result["high"]
    assert (result["recovered"], result["maintained_gap"]) == (0.0, 1.0)
    assert why_not_valid(NO_ATTACK, FACTS, 0.9, 0.9) == ""


def test_an_attack_that_restores_the_target_has_both_at_one() -> None:
    result = attack_figures(replace(NO_ATTACK, attacked_unlearned=TARGET), FACTS, score=False)
    assert result["knowledge_left_attacked"] == pytest.approx(1.0) and result["recovered"] == pytest.approx(1.0)
    assert (result["low"], result["high"]) == pytest.approx((1.0, 1.0))
    assert result["maintained_gap"] == pytest.approx(0.0)


def test_an_attack_that_lifts_all_three_alike_shows_nothing() -> None:
    """If the attack teaches all three models the same, nothing came back; `recovered` has no oracle and says it did."""
    lifted = replace(
        NO_ATTACK, attacked_target=TARGET + 2, attacked_unlearned=UNLEARNED + 2, attacked_oracle=ORACLE + 2
    )
    result = attack_figures(lifted, FACTS, score=False)
    assert result["knowledge_left_attacked"] == pytest.approx(result["knowledge_left"])
    assert result["recovered"] == pytest.approx(2 / (TARGET.mean() - UNLEARNED.mean()))


def test_the_two_readings_of_maintains_83_percent() -> None:
    """0.637 -> 0.312, and 0.429 after the attack, is 83 % of the error and 64 % of the gap."""
    result = attack_figures(constant(0.637, 0.312, 0.3, 0.637, 0.429, 0.3), FACTS, score=True)
    assert result["maintained_error"] == pytest.approx(0.83, abs=0.005)
    assert result["maintained_gap"] == pytest.approx(0.64, abs=0.005)
    assert result["recovered"] == pytest.approx(0.36, abs=0.005)
    assert result["note"] == ""


def test_what_is_undefined_is_none_with_its_reason() -> None:
    # The attack closed the gap of target and oracle to a tenth: K_A says nothing.
    closed = attack_figures(constant(5.0, -1.0, -5.0, 1.0, 0.5, 0.0), FACTS, score=False)
    assert (closed["knowledge_left_attacked"], closed["low"], closed["high"]) == (None, None, None)
    assert closed["reason"].startswith("target and oracle differ by too little (lower bound 1, must be over 2")
    assert f"knowledge_left_attacked undefined: {closed['reason']}" in closed["note"] and closed[
        "knowledge_left"
    ] == pytest.approx(0.4)
    assert closed["maintained_error"] is None and "maintained_error undefined: log-odds" in closed["note"]
    # Target and oracle know the same: no K at all. The unlearned model lost nothing, and makes no error.
    same = attack_figures(constant(0.9, 1.0, 0.9, 0.9, 1.0, 0.9), FACTS, score=True)
    assert [same[name] for name in ("knowledge_left", "knowledge_left_attacked", "recovered", "maintained_error")] == [
        None
    ] * 4
    assert all(
        f"{name} undefined" in same["note"]
        for name in ("knowledge_left", "knowledge_left_attacked", "maintained_error")
    )
    assert "recovered and maintained_gap undefined" in same["note"]
    broken = attack_figures(replace(NO_ATTACK, attacked_unlearned=np.full(ROWS, np.inf)), FACTS, score=False)
    assert (
        broken["attacked_unlearned"] is None
        and broken["knowledge_left_attacked"] is None
        and broken["recovered"] is None
    )
    assert broken["knowledge_left"] is not None and "finite" in broken["note"]


@pytest.mark.parametrize(
    ("gap", "utility", "valid"),
    [
        (0.31, 0.51, True),
        (1.2, 1.1, True),
        (0.29, 1.0, False),
        (1.0, 0.49, False),
        (0.1, 0.1, False),
    ],
)
def test_an_attack_counts_if_it_leaves_the_target_its_knowledge(gap: float, utility: float, valid: bool) -> None:
    measured = constant(4.0, 0.0, -2.0, -1.0 + 6.0 * gap, 0.0, -1.0)
    reason = why_not_valid(measured, FACTS, 0.8, 0.8 * utility)
    assert bool(reason) is not valid
    assert (f"keeps {gap:.2f}" in reason) == (gap < 0.3) and ("utility" in reason) == (utility < 0.5)
    assert attack_figures(measured, FACTS, score=False)["gap_kept"] == pytest.approx(gap)


def test_the_lower_bound_of_the_attacked_gap_counts() -> None:
    """A mean gap of half the old one, with facts so different that it might be none."""
    wide = constant(4.0, 0.0, -2.0, 0.0, 0.0, 0.0)
    spread = np.repeat(np.where(np.arange(ROWS // 4) % 2, 27.0, -21.0), 4)  # mean 3, deviation 24
    reason = why_not_valid(replace(wide, attacked_target=spread), FACTS, 1.0, 1.0)
    assert "keeps 0.50 of its gap" in reason and "perhaps only -" in reason


def test_the_spread_of_repeats_widens_the_intervals() -> None:
    figures = {"knowledge_left_attacked": 0.2, "low": 0.1, "high": 0.3, "low90": 0.12, "high90": 0.28}
    repeats = [0.1, 0.2, 0.3]  # standard deviation 0.1
    found = widened(figures, repeats)
    error = 0.1 / 3**0.5
    assert found["low"] == pytest.approx(0.2 - (0.1**2 + (1.96 * error) ** 2) ** 0.5)
    assert found["high90"] == pytest.approx(0.2 + (0.08**2 + (1.645 * error) ** 2) ** 0.5)
    assert widened(figures, [0.2]) == widened(figures, [0.2, None]) == {}
    assert widened(figures, [0.2, 0.2, 0.2]) == pytest.approx({end: figures[end] for end in found})


def test_no_attack_counts_where_the_target_knows_no_more_than_the_oracle() -> None:
    reason = why_not_valid(constant(1.0, 1.0, 1.0, 1.0, 1.0, 1.0), FACTS, 1.0, 1.0)
    assert reason == "the target knows no more than the oracle"


def test_few_facts() -> None:
    """One fact has a value and no interval, and does not count; the interval of three is said to be too narrow."""
    few = ModelValues(*(values[:3] for values in (TARGET, UNLEARNED, ORACLE, TARGET, UNLEARNED, ORACLE)))
    one = attack_figures(few, ["fact"] * 3, score=False)
    assert one["knowledge_left_attacked"] is not None and one["low"] is one["high90"] is None
    assert one["reason"] == "one fact gives no interval" and widened(one, [0.1, 0.2]) == {}
    three = attack_figures(few, ["a", "b", "c"], score=False)
    assert three["low"] is not None and three["reason"] == "" and "3 facts is too narrow" in three["note"]
