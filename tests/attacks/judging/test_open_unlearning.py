"""OpenUnlearning's robustness figures, by hand."""

from __future__ import annotations

import pytest

from erulab.attacks.judging.open_unlearning import open_unlearning_columns, quantisation_ratio, relearning_ratio

MEANS = {
    "target": 0.9,
    "unlearned": 0.3,
    "oracle": 0.2,
    "attacked_target": 0.9,
    "attacked_unlearned": 0.5,
    "attacked_oracle": 0.25,
}


def test_r_compares_what_relearning_adds() -> None:
    # The oracle gains .05 and the unlearned model .2: it learns four times as fast as one that never knew.
    assert relearning_ratio(0.25 - 0.2, 0.5 - 0.3) == pytest.approx(0.25)
    assert relearning_ratio(0.4, 0.2) == 1.0 and relearning_ratio(-0.1, 0.2) == pytest.approx(-0.5)
    assert relearning_ratio(0.1, 0.0) is None and relearning_ratio(0.1, -0.2) is None


def test_q_falls_where_rounding_alone_brings_knowledge_back() -> None:
    assert quantisation_ratio(0.3, 0.5) == pytest.approx(0.6)
    assert quantisation_ratio(0.5, 0.3) == quantisation_ratio(0.5, 0.5) == 1.0
    assert quantisation_ratio(0.5, 0.0) is None


def test_each_attack_has_its_own_column() -> None:
    def found(attack: str, *, score: bool = True, **changed: float | None) -> tuple[object, object, str]:
        row = open_unlearning_columns(attack, {**MEANS, **changed}, score=score)
        return row["open_unlearning_r"], row["open_unlearning_q"], row["note"]

    assert found("relearn") == (pytest.approx(0.25), None, "")
    assert found("quantize") == (None, pytest.approx(0.6), "")
    assert found("sequence") == (None, None, "")
    assert found("relearn", score=False) == (
        None,
        None,
        "open_unlearning_r undefined: it is defined for scores in [0, 1]",
    )
    assert "learned nothing" in found("relearn", attacked_unlearned=0.3)[2]
    assert "is 0" in found("quantize", attacked_unlearned=0.0)[2]
    assert "finite" in found("quantize", oracle=None)[2]
