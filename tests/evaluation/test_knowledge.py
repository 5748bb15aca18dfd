"""Knowledge left and its interval: identities, a closed form for the interval, and when it is undefined."""

from __future__ import annotations

import numpy as np
import pytest

from erulab.data.rows import Role
from erulab.evaluation.knowledge import knowledge_left, knowledge_values, mean_gap
from tests.evaluation.test_aggregate import scored

rng = np.random.default_rng(4)
ROWS = 200
FACTS = [f"fact/{i}" for i in range(ROWS)]
ORACLE = rng.normal(-3, 1, ROWS)
TARGET = ORACLE + rng.normal(6, 1, ROWS)


def test_the_target_is_one_the_oracle_zero_and_k_is_linear_between() -> None:
    for share in (0.0, 1.0, 0.25, -0.5, 1.5):
        figure = knowledge_left(ORACLE + share * (TARGET - ORACLE), TARGET, ORACLE, FACTS)
        # The same share in every row: every resample gives it too.
        assert (figure.value, figure.low, figure.high) == pytest.approx((share,) * 3, abs=1e-12)


def test_the_interval_is_that_of_a_ratio_of_paired_means() -> None:
    model = ORACLE + rng.normal(1, 2, ROWS)
    figure = knowledge_left(model, TARGET, ORACLE, FACTS)
    above, whole = model - ORACLE, TARGET - ORACLE
    value = above.mean() / whole.mean()
    error = np.std(above - value * whole) / whole.mean() / ROWS**0.5  # delta method
    assert figure.value == pytest.approx(value)
    assert figure.low == pytest.approx(value - 1.96 * error, abs=0.25 * error)
    assert figure.high == pytest.approx(value + 1.96 * error, abs=0.25 * error)


def test_phrasings_of_a_fact_are_one_observation() -> None:
    model = ORACLE + rng.normal(1, 2, ROWS)
    once = knowledge_left(model, TARGET, ORACLE, FACTS)
    thrice = knowledge_left(*(np.repeat(values, 3) for values in (model, TARGET, ORACLE)), list(np.repeat(FACTS, 3)))
    apart = knowledge_left(*(np.repeat(v, 3) for v in (model, TARGET, ORACLE)), [str(i) for i in range(3 * ROWS)])
    assert (thrice.value, thrice.low, thrice.high) == pytest.approx((once.value, once.low, once.high))
    assert apart.low is not None and once.low is not None and apart.low > once.low


def test_k_is_undefined_with_a_reason_where_target_and_oracle_do_not_differ() -> None:
    noise = rng.normal(0, 1, ROWS)
    for target in (ORACLE, ORACLE + noise - noise.mean(), ORACLE - 3):
        figure = knowledge_left(TARGET, target, ORACLE, FACTS)
        assert (figure.value, figure.low, figure.high) == (None, None, None)
        assert "differ by too little" in figure.reason
    # After an attack the gap's lower bound must keep a share of the gap before.
    assert knowledge_left(ORACLE, TARGET, ORACLE, FACTS, least_gap=0.2 * mean_gap(TARGET, ORACLE)).value == 0.0
    assert "must be over 7" in knowledge_left(ORACLE, TARGET, ORACLE, FACTS, least_gap=7.0).reason
    assert knowledge_left(ORACLE[:0], ORACLE[:0], ORACLE[:0], []).reason.startswith("no scored forget row has wrong")
    broken = np.where(np.arange(ROWS) == 3, np.nan, ORACLE)
    assert "finite" in knowledge_left(broken, TARGET, ORACLE, FACTS).reason


def test_knowledge_is_read_from_forget_and_heldout_rows() -> None:
    rows = [
        scored("forget", Role.FORGET, 0, log_odds=1.0),
        scored("heldout", Role.HELDOUT, 1, log_odds=2.0),
        scored("retain", Role.RETAIN, 2, log_odds=3.0),
        scored("forget", Role.FORGET, 3, nll=4.0),
    ]
    values, facts = knowledge_values(rows)
    assert values.tolist() == [1.0, 2.0] and facts == ["fact/0", "fact/1"]


def test_one_fact_has_no_interval() -> None:
    """Phrasings of one fact say nothing about other facts: a width of 0 would be certainty."""
    figure = knowledge_left(ORACLE[:3] + 1, TARGET[:3], ORACLE[:3], ["fact"] * 3)
    assert figure.value is not None and not figure.reason
    assert (figure.low, figure.high, figure.low90, figure.high90) == (None,) * 4
    assert knowledge_left(ORACLE[:2], TARGET[:2], ORACLE[:2], ["a", "b"]).low is not None
