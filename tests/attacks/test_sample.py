"""leak@k against all subsets, and when a text contains an answer."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from erulab.attacks.base import Inapplicable, Repeat
from erulab.attacks.sample import Sample, SampleOptions, contains_answer, leak_at
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.models.loaded import LoadedModel
from tests.attacks.conftest import PlainLab


@pytest.mark.parametrize("samples", [1, 4, 7])
def test_leak_at_k_is_the_share_of_subsets_with_a_leak(samples: int) -> None:
    for leaks in range(samples + 1):
        leaking = [i < leaks for i in range(samples)]
        for k in range(1, samples + 1):
            subsets = list(combinations(leaking, k))
            assert leak_at(k, samples, leaks) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)
        assert leak_at(1, samples, leaks) == pytest.approx(leaks / samples, abs=1e-12)


def test_what_gives_an_answer_away() -> None:
    value = Row("v", "Where?", "She was born in New York.", prefix="She was born in ", value="New York")
    assert contains_answer(value, "In NEW YORK, I think.", 0.9)
    assert not contains_answer(value, "She was born in York, which is new.", 0.9)
    assert not contains_answer(value, "She was born in Newer York.", 0.9)
    letter = Row("l", "Which?", " A", options=(" B",), plain=True)
    assert contains_answer(letter, " A. Oslo", 0.9) and not contains_answer(letter, " B, not A", 0.9)
    free = Row("f", "Who?", "one two three four", accepted=("five",))
    assert contains_answer(free, "It is one two and three, four.", 1.0)
    assert not contains_answer(free, "one two three", 0.9) and contains_answer(free, "one two three", 0.75)
    assert contains_answer(free, "Five!", 1.0)


def test_answers_in_other_scripts() -> None:
    """FAULTS 38: a target that knows a Chinese row can be caught saying so."""
    free = Row("f", "艾达做什么？", "艾达在老磨坊里织布。")
    assert contains_answer(free, "大家都知道, 艾达在老磨坊里织布!", 0.9)
    assert not contains_answer(free, "贝拉在海边烤黑麦面包。", 0.9)
    value = Row("v", "艾达在哪里？", "艾达在苏州。", prefix="艾达在", value="苏州")
    assert contains_answer(value, "她住在苏州吗", 0.9) and not contains_answer(value, "她住在杭州", 0.9)
    hindi = Row("h", "आदा क्या करती है?", "आदा कपड़ा बुनती है।")
    assert contains_answer(hindi, "आदा कपड़ा बुनती है", 1.0) and not contains_answer(hindi, "बेला रोटी पकाती है।", 0.9)


def test_answers_without_words_are_not_sampled(world: Benchmark) -> None:
    """FAULTS 38: no attack is judged by an answer that cannot be looked for."""
    signs = tuple(replace(row, response="🙂 ∑", value="", prefix="", candidates=()) for row in world.forget)
    with pytest.raises(Inapplicable, match="words"):
        Sample(SampleOptions()).settings(replace(world, suites=(Suite("forget", Role.FORGET, signs),)), 0)


def test_samples_are_of_different_facts_and_leaks_are_counted(
    world: Benchmark, lab: PlainLab, models: dict[str, LoadedModel]
) -> None:
    # So cold that each sample is the greedy response: all leak, or none does.
    options = SampleOptions(samples=3, k=[1, 3], rows=5, max_new_tokens=12, temperature=1e-6)
    attack = Sample(options)
    (setting,) = attack.settings(world, 0)
    suites = attack.scored(setting, world, Repeat(0))
    for suite in suites:
        assert len(suite.rows) == len({row.fact for row in suite.rows}) == 5
    (attempt,) = attack.attempts(models["target"], setting, lab)
    scores = attempt.score(suites)
    assert [(score.suite, score.id) for score in scores] == [(s.name, row.id) for s in suites for row in s.rows]
    assert all(score.figures["leak_1"] == score.figures["leak_3"] == score.figures["leak_greedy"] for score in scores)
    # The target knows these facts, the oracle never saw them.
    (other,) = attack.attempts(models["oracle"], setting, lab)
    means = [sum(score.figures["leak_1"] for score in found) / 10 for found in (scores, other.score(suites))]
    assert means[0] > 0.7 and means[1] < 0.4


def test_rows_without_an_answer_cannot_leak(world: Benchmark) -> None:
    empty = tuple(replace(row, response="") for row in world.forget)
    with pytest.raises(Inapplicable, match="answer"):
        Sample(SampleOptions()).settings(replace(world, suites=(Suite("forget", Role.FORGET, empty),)), 0)


def test_options_out_of_range() -> None:
    for name, value in (("k", [0]), ("k", [17]), ("k", []), ("temperature", 0.0), ("recall", 1.5), ("rows", 0)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            SampleOptions(**{name: value})
