"""The rule that chooses the best trial of an arm."""

from __future__ import annotations

import math

import pytest

from erulab.errors import ConfigError
from erulab.study.choose import Bound, Match, StudyRun, TrialMean, average_runs, best_trials
from erulab.tuning.objective import TrialRun, read_trial_run

KEPT = Bound(Match.utility, 0.97)
WHERE = "tuning.utility"


def test_the_smallest_distance_wins_among_trials_that_keep_enough_utility() -> None:
    trials = [[StudyRun(0.5, 0.99)], [StudyRun(-0.2, 0.98)], [StudyRun(0.01, 0.9)], [StudyRun(0.3, 1.0)]]
    assert best_trials(trials, KEPT, 1) == [1]
    # The others follow, by the utility they keep.
    assert best_trials([*trials, [StudyRun(0.9, 0.95)]], KEPT, 5) == [1, 3, 0, 4, 2]


def test_worlds_are_averaged_and_a_failed_run_is_infinitely_bad() -> None:
    assert average_runs([StudyRun(-0.25, 1.0), StudyRun(0.75, 0.5)]) == TrialMean(0.5, 0.75, math.inf)
    assert best_trials(
        [[StudyRun(0.1, 0.99), StudyRun(None, None)], [StudyRun(0.9, 0.98), StudyRun(0.9, 0.98)]], KEPT, 2
    ) == [1, 0]
    assert best_trials([[StudyRun(None, None)], [StudyRun(None, None)]], KEPT, 1) == [0]


def test_reads_knowledge_left_and_utility_kept() -> None:
    unlearned = {"retain/choice": 0.6, "knowledge_left": -0.1}
    scores = {"target": {"retain/choice": 0.8}, "unlearned": unlearned, "oracle": {}}
    assert read_trial_run(scores, "retain/choice", WHERE) == TrialRun(-0.1, 0.6 / 0.8)
    assert read_trial_run(None, "retain/choice", WHERE) == TrialRun(None, None)
    scores["target"]["retain/choice"] = 0.0
    assert read_trial_run(scores, "retain/choice", WHERE) == TrialRun(-0.1, None)


def test_a_figure_that_was_not_measured_is_an_error() -> None:
    scores = {"target": {"retain/choice": 0.8}, "unlearned": {"knowledge_left": 0.1}, "oracle": {}}
    with pytest.raises(ConfigError, match="did you mean retain/choice"):
        read_trial_run(scores, "retain/chioce", WHERE)
    with pytest.raises(ConfigError, match="oracle were not scored"):
        read_trial_run({model: scores[model] for model in ("target", "unlearned")}, "retain/choice", WHERE)
