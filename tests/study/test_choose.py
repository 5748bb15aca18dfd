"""The rule by which a trial is the best of its arm."""

from __future__ import annotations

import pytest

from erulab.errors import ConfigError
from erulab.study.choose import Standing, Tried, best, standing, tried

KEPT = 0.97


def test_among_those_that_keep_enough_the_smallest_distance_wins() -> None:
    trials = [[Tried(0.5, 0.99)], [Tried(-0.2, 0.98)], [Tried(0.01, 0.9)], [Tried(0.3, 1.0)]]
    assert best(trials, KEPT, 1) == [1]
    # Behind them those that do not, by what they keep.
    assert best([*trials, [Tried(0.9, 0.95)]], KEPT, 5) == [1, 3, 0, 4, 2]


def test_worlds_are_averaged_and_a_failed_run_is_infinitely_bad() -> None:
    assert standing([Tried(-0.25, 1.0), Tried(0.75, 0.5)]) == Standing(0.5, 0.75)
    assert best([[Tried(0.1, 0.99), Tried(None, None)], [Tried(0.9, 0.98), Tried(0.9, 0.98)]], KEPT, 2) == [1, 0]
    assert best([[Tried(None, None)], [Tried(None, None)]], KEPT, 1) == [0]


def test_scores_are_read_as_k_and_share_of_the_target() -> None:
    unlearned = {"retain/choice": 0.6, "residual": -0.1}
    scores = {"target": {"retain/choice": 0.8}, "unlearned": unlearned, "oracle": {}}
    assert tried(scores, "retain/choice") == Tried(-0.1, 0.6 / 0.8)
    assert tried(None, "retain/choice") == Tried(None, None)
    scores["target"]["retain/choice"] = 0.0
    assert tried(scores, "retain/choice") == Tried(-0.1, None)


def test_what_is_never_measured_is_no_rule() -> None:
    scores = {"target": {"retain/choice": 0.8}, "unlearned": {"residual": 0.1}, "oracle": {}}
    with pytest.raises(ConfigError, match="did you mean retain/choice"):
        tried(scores, "retain/chioce")
    with pytest.raises(ConfigError, match="oracle were not scored"):
        tried({model: scores[model] for model in ("target", "unlearned")}, "retain/choice")
