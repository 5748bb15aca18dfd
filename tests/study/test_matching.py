"""How far a model is from its target: two measures against their closed forms, and the rule that bounds them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.errors import ConfigError, DataError
from erulab.study import spec
from erulab.study.choose import Bound, Match, StudyRun, best_trials
from erulab.study.matching import mean_kl, relative_distance
from tests.attacks.conftest import PlainLab, learned
from tests.study.test_spec import written
from tests.study.test_study import STUDY


def test_kl_is_that_of_a_second_computation_token_by_token() -> None:
    world = FictitiousWorld(FictitiousOptions(world=7, forget_authors=2, retain_authors=2)).load(0)
    lab = PlainLab(world)
    target, other = (learned(lab, world.target_rows[:40], epochs) for epochs in (1, 3))
    rows = [target.chat.encode(row) for row in world.retain[:7]]
    values = []
    for row in rows:
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            p, q = (one.model(input_ids=ids).logits[0].double().softmax(-1) for one in (target, other))
        values += [(p[i - 1] * (p[i - 1] / q[i - 1]).log()).sum().item() for i in row.positions]
    expected = math.fsum(values) / len(values)
    assert expected > 0.01
    for batch_tokens in (20, 10_000):
        assert mean_kl(target, other, rows, batch_tokens) == pytest.approx(expected, rel=1e-4)
    assert mean_kl(target, target.copy(), rows, 10_000) == pytest.approx(0.0, abs=1e-6)
    # It is not symmetric: the target's distribution is what the mean is taken over.
    assert mean_kl(other, target, rows, 10_000) != pytest.approx(expected, rel=1e-2)


def test_weight_distance_in_closed_form() -> None:
    target = {"a": torch.full((2, 2), 2.0), "b": torch.tensor([3.0])}
    assert relative_distance(target, target) == 0
    # ||(1, 1, 1, 1, 0)|| / ||(2, 2, 2, 2, 3)|| = 2 / 5; twice the weights are one norm away.
    assert relative_distance(target, {**target, "a": torch.full((2, 2), 1.0)}) == pytest.approx(0.4, rel=1e-12)
    assert relative_distance(target, {name: 2 * one for name, one in target.items()}) == pytest.approx(1.0, rel=1e-12)
    # A change far below float32's resolution of the sum of squares is still seen.
    near = {**target, "b": torch.tensor([3.0 + 2**-22])}
    assert relative_distance(target, near) == pytest.approx(2**-22 / 5, rel=1e-6)
    with pytest.raises(DataError, match="not the same"):
        relative_distance(target, {"a": target["a"]})


def test_within_the_bound_knowledge_decides_and_beyond_it_the_distance() -> None:
    runs = [StudyRun(0.1, 0.5, 0.3), StudyRun(-0.4, 0.1, 0.05), StudyRun(0.6, 1.0, 0.01), StudyRun(0.0, 1.0, 0.2)]
    trials = [[run] for run in runs]
    assert best_trials(trials, Bound(Match.kl, 0.05), 4) == [1, 2, 3, 0]
    assert best_trials(trials, Bound(Match.weights, 1.0), 4) == [3, 0, 1, 2]
    failed, undefined = StudyRun(None, None, None), StudyRun(0.0, 1.0, math.nan)
    assert best_trials([[failed], [undefined], [runs[2]]], Bound(Match.kl, 0.001), 3)[0] == 2
    # Two worlds: the mean of 0.01 and 0.3 is over a bound of 0.1.
    assert best_trials([[runs[2], runs[0]], [runs[1], runs[1]]], Bound(Match.kl, 0.1), 2) == [1, 0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("match: kl", "tuning.bound must be a number > 0 where tuning.match is kl"),
        ("bound: 0.1", "tuning.bound must be left out where tuning.match is utility"),
        ("match: cosine", "utility, kl, weights"),
        ("{match: weights, bound: -1}", "tuning.bound must be a number > 0"),
    ],
)
def test_errors_of_a_bound_are_one_line(tmp_path: Path, line: str, said: str) -> None:
    lines = line.strip("{}").replace(", ", "\n  ")
    with pytest.raises(ConfigError) as error:
        spec.read_study(written(tmp_path, STUDY.replace("kept: 0.9", lines)))
    assert said in str(error.value) and "\n" not in str(error.value)
