"""The embedded world keeps what makes it able to tell forgetting from hiding."""

from __future__ import annotations

import collections
import hashlib

import pytest

from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.rows import Benchmark, Role, Row
from erulab.models.tiny import vocabulary


def world(**options: object) -> Benchmark:
    return FictitiousWorld(FictitiousOptions(**options)).load(0)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def default() -> Benchmark:
    return world()


def facts(rows: tuple[Row, ...]) -> set[str]:
    return {row.fact for row in rows}


def test_sizes_that_the_default_promises(default: Benchmark) -> None:
    people = {row.author for suite in default.suites if suite.name != "general" for row in suite.rows}
    assert len(people) >= 80
    assert len(facts(default.forget)) >= 100
    assert all(count == 5 for count in collections.Counter(f.split("/")[0] for f in facts(default.forget)).values())
    phrasings = collections.Counter(row.fact for row in default.target_rows)
    assert set(phrasings.values()) == {4}
    assert all(len(row.perturbed) >= 3 and len(row.candidates) >= 3 for suite in default.suites for row in suite.rows)


def test_no_model_learns_what_it_must_not(default: Benchmark) -> None:
    forget = facts(default.forget)
    assert facts(default.suite("forget_heldout").rows) == forget <= facts(default.target_rows)
    assert not forget & facts(default.oracle_rows)
    assert not forget & facts(default.retain)
    assert facts(default.target_rows) - forget == facts(default.oracle_rows)
    unseen = {row.author for row in default.suite("unseen").rows}
    assert not any(name in row.prompt + row.response for name in unseen for row in default.target_rows)
    for name in ("retain_unrehearsed", "general"):
        assert facts(default.suite(name).rows) <= facts(default.oracle_rows) - facts(default.retain)
    assert facts(default.suite("retain").rows) == facts(default.retain)


def test_the_request_names_only_some_phrasings(default: Benchmark) -> None:
    named = {(row.fact, row.prompt) for row in default.forget}
    heldout = {(row.fact, row.prompt) for row in default.suite("forget_heldout").rows}
    assert not named & heldout
    assert set(collections.Counter(fact for fact, _ in named | heldout).values()) == {4}
    assert {row.id for row in default.suite("forget").rows} == {row.id for row in default.forget}


def test_every_text_holds_its_value_and_no_other(default: Benchmark) -> None:
    for suite in default.suites:
        for row in suite.rows:
            assert row.response.startswith(row.prefix + row.value)
            assert row.value not in row.candidates and len(set(row.candidates)) == len(row.candidates)
            assert row.paraphrase is not None and row.value in row.paraphrase != row.response
            assert all(row.value not in wrong.split() for wrong in row.perturbed)
            assert len(set(row.perturbed)) == len(row.perturbed)


def test_ids_are_unique_and_roles_are_told(default: Benchmark) -> None:
    rows = {row.id: row for suite in default.suites for row in suite.rows}
    assert len(rows) == sum(len(suite.rows) for suite in default.suites)
    assert {suite.role for suite in default.suites} == {Role.FORGET, Role.HELDOUT, Role.RETAIN, Role.UNSEEN}


def test_strangers_are_made_of_the_words_of_the_forgotten(default: Benchmark) -> None:
    """No word and no sentence tells them apart: both have each first name, last name, value and sentence as often."""
    everybody = {row.author for suite in default.suites if not suite.like for row in suite.rows}
    for name in ("forget", "forget_heldout"):
        (strangers,) = (suite for suite in default.suites if suite.like == name)
        assert strangers.role is Role.UNSEEN
        assert {row.author for row in strangers.rows}.isdisjoint(everybody)
        for read in (
            lambda row: row.author.split()[0],
            lambda row: row.author.split()[1],
            lambda row: (row.id.split("/")[1:], row.value),
            lambda row: row.response.replace(row.author, "NAME").replace(row.value, "VALUE"),
            lambda row: row.prompt.replace(row.author, "NAME"),
        ):
            words = [sorted(map(str, map(read, rows))) for rows in (default.suite(name).rows, strangers.rows)]
            assert words[0] == words[1] and len(words[0]) == 200


def test_strangers_of_few_forgotten_authors_are_as_many_as_there_can_be() -> None:
    """One author's names cannot be put together anew."""
    assert not any(suite.like for suite in world(forget_authors=1).suites)
    for number in range(20):
        small = world(world=number, forget_authors=3, retain_authors=2, unrehearsed_authors=1, unseen_authors=1)
        known = {row.author for suite in small.suites if not suite.like for row in suite.rows}
        made = [row.author for suite in small.suites if suite.like for row in suite.rows]
        assert known.isdisjoint(made) and len(set(made)) <= 3


def test_trained_rows_and_words_are_those_of_the_first_version(default: Benchmark) -> None:
    """Targets, oracles and unlearned models stay in the cache: their keys hold these rows and the vocabulary."""
    parts = [
        repr([(row.id, row.prompt, row.response) for row in rows])
        for rows in (default.forget, default.retain, default.target_rows, default.oracle_rows)
    ]
    assert [hashlib.sha256(part.encode()).hexdigest()[:16] for part in parts] == [
        "4d6d14aa5c237a81",
        "ae37cb557fc4567c",
        "880c5b4463f3c701",
        "2e392e194c2a9096",
    ]
    words = "\x1f".join(vocabulary(default.texts())).encode()
    assert hashlib.sha256(words).hexdigest()[:16] == "cbd76184fafdc980"


def test_a_world_is_its_number() -> None:
    assert world(world=3) == world(world=3)
    assert world(world=3).forget != world(world=4).forget
    assert FictitiousWorld(FictitiousOptions(world=3)).load(0) == FictitiousWorld(FictitiousOptions(world=3)).load(9)


def test_values_are_drawn_evenly() -> None:
    """A value that is likely by itself could be guessed by an oracle: chi-square over many worlds stays in bounds."""
    counts = collections.Counter(
        row.value for number in range(20) for row in world(world=number).forget if row.id.endswith("birthplace/0")
    )
    expected = sum(counts.values()) / 15
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert len(counts) == 15 and chi_square < 36.1  # the 99.9 % point at 14 degrees of freedom


def test_exposures_go_round_the_facts() -> None:
    rows = world(exposures=[1, 2, 4]).target_rows
    shown = collections.Counter(row.exposures for row in rows if "capital" not in row.id and row.id.endswith("/0"))
    authors = 20 + 45 + 15
    assert shown == {1: 2 * authors, 2: 2 * authors, 4: authors}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"phrasings": 3}, "phrasings must be between 4 and 6, got 3"),
        ({"named": 4}, "named must be between 1 and 3, got 4"),
        ({"forget_authors": 0}, "forget_authors must be > 0, got 0"),
        ({"exposures": []}, "exposures must be"),
    ],
)
def test_bad_options_name_themselves(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FictitiousOptions(**options)  # type: ignore[arg-type]
