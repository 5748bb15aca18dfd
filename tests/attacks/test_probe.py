"""The discriminant against scipy's normal densities; probes on states whose content is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from erulab.attacks.base import Inapplicable, Repeat
from erulab.attacks.halves import validation_half
from erulab.attacks.probe import Probe, ProbeOptions
from erulab.attacks.states.discriminant import log_posterior, rotate_to_span
from erulab.attacks.states.probe_question import ProbeQuestion
from erulab.attacks.states.readout import Readout
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.models.loaded import LoadedModel
from tests.attacks.conftest import PlainLab, attacked

rng = np.random.default_rng(0)
VALUES = ("red", "green", "blue", "grey", "black")
FACTS = {f"fact{i}": VALUES[i % 5] for i in range(150)}
QUESTIONS = [
    ProbeQuestion(Row(f"{fact}/{i}", "", "", fact=fact), value, tuple(v for v in VALUES if v != value))
    for fact, value in FACTS.items()
    for i in range(3)
]
VALIDATION = frozenset(f"fact{i}" for i in range(50))
LEARNED = np.array([question.fact in VALIDATION or int(question.fact[4:]) >= 100 for question in QUESTIONS])


def test_odds_are_those_of_normal_classes() -> None:
    train, labels = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    states, shrinkage = rng.normal(size=(9, 6)), 0.3
    found = log_posterior(train, labels, 3, states, shrinkage)
    within = np.concatenate([train[labels == k] - train[labels == k].mean(0) for k in range(3)])
    square = within.T @ within / 40
    covariance = (1 - shrinkage) * square + shrinkage * np.trace(square) / 6 * np.eye(6)
    expected = np.stack(
        [
            np.log((labels == k).sum()) + multivariate_normal(train[labels == k].mean(0), covariance).logpdf(states)
            for k in range(3)
        ],
        1,
    )
    np.testing.assert_allclose(found - found[:, :1], expected - expected[:, :1], atol=1e-9)


def test_few_rows_of_wide_states_keep_their_geometry() -> None:
    states = rng.normal(size=(5, 40))
    compact = rotate_to_span(states)
    assert compact.shape == (5, 5)
    np.testing.assert_allclose(compact @ compact.T, states @ states.T, atol=1e-10)


def read(states: np.ndarray) -> dict[str, np.ndarray]:
    figures = Readout(QUESTIONS, states, LEARNED, VALIDATION, Repeat(0), 0.1).figures()
    # What is only learned from is not read.
    assert set(figures) == {q.row.id for q in QUESTIONS if int(q.fact[4:]) < 100}
    return {name: np.array([one[name] for one in figures.values()]) for name in next(iter(figures.values()))}


def test_a_value_that_is_written_in_the_states_is_read_and_its_control_is_chance() -> None:
    codes = {value: rng.normal(size=12) for value in VALUES}
    figures = read(np.stack([codes[q.value] + 0.3 * rng.normal(size=12) for q in QUESTIONS]))
    assert figures["probe_choice"].mean() > 0.97 and figures["probe_log_odds"].mean() > 2
    assert abs(figures["probe_control"].mean() - 1 / 5) < 0.12
    np.testing.assert_allclose(figures["probe_selectivity"], figures["probe_choice"] - figures["probe_control"])


def test_what_only_tells_facts_apart_tells_no_value() -> None:
    """Every fact has its own state, the same in all phrasings, so a probe that learned a fact could read it."""
    codes = {fact: rng.normal(size=200) for fact in FACTS}
    figures = read(rotate_to_span(np.stack([codes[q.fact] for q in QUESTIONS])))
    assert abs(figures["probe_choice"].mean() - 1 / 5) < 0.12 and figures["probe_log_odds"].mean() < 0


def test_rows_whose_value_nobody_learned_from_are_left_out(lab: PlainLab, models: dict[str, LoadedModel]) -> None:
    rows = {row["metric"]: row for row in attacked(Probe(ProbeOptions()), models, lab)}
    row = rows["forget/probe_choice"]
    assert row["headline"] and row["target"] is None and row["flops"] > 0 == row["steps"]
    assert [one["chosen"] for one in row["attempts"]] == [{"layer": 1}, {"layer": 2}]
    world, half = lab.benchmark, validation_half(lab.benchmark, 0)
    kept = [suite.rows for suite in world.suites if suite.role is Role.RETAIN]
    values = {
        one.value for part in (world.retain, *kept, [one for one in world.forget if one.fact in half]) for one in part
    }
    reported = [one for one in world.suite("forget").rows if one.fact not in half]
    assert 0 < row["n"] == sum(one.value in values for one in reported) < len(reported)


def test_options_are_values_and_rows_without_either_are_refused(world: Benchmark) -> None:
    letters = tuple(
        Row(f"q{i}", "Which?", f" {'ABCD'[i % 4]}", options=tuple(f" {c}" for c in "ABCD" if c != "ABCD"[i % 4]))
        for i in range(20)
    )
    probe = Probe(ProbeOptions())
    quiz = Benchmark("quiz", (Suite("forget", Role.FORGET, letters),))
    assert probe.settings(quiz, 0) == [{"shrinkage": 0.1}]
    assert probe.scored({}, quiz, Repeat(0))[0].rows == letters
    assert ProbeQuestion.from_row(letters[0]) == ProbeQuestion(letters[0], " A", (" B", " C", " D"))
    bare = tuple(
        replace(suite, rows=tuple(replace(row, value="", candidates=()) for row in suite.rows))
        for suite in world.suites
    )
    with pytest.raises(Inapplicable, match="candidates or options"):
        probe.settings(replace(world, suites=bare, retain=()), 0)
    for value in (0.0, 1.5):
        with pytest.raises(ValueError, match="shrinkage must be"):
            ProbeOptions(shrinkage=value)
