"""Which rows prompts are optimised for, and which rows are scored."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from erulab.attacks.base import Inapplicable, Repeat
from erulab.attacks.halves import validation_facts
from erulab.attacks.optimising import optimised
from erulab.attacks.optimising.optimised import EVERYONE, PromptMode
from erulab.data.rows import Benchmark, Row
from erulab.evaluation.suites import forget_suites
from erulab.models.loaded import LoadedModel
from erulab.tokens.chat import ChatFormat
from erulab.tokens.insertion import InsertingChatFormat, Place
from tests.attacks.conftest import PlainLab

SEED = 0


def changed(world: Benchmark, **changes: Any) -> Benchmark:
    return replace(
        world,
        suites=tuple(
            replace(suite, rows=tuple(replace(row, **changes) for row in suite.rows)) for suite in world.suites
        ),
    )


def facts(rows: Any) -> set[str]:
    return {row.fact for row in rows}


@pytest.mark.parametrize("most", [None, 2])
def test_what_a_universal_prompt_is_trained_on_neither_chooses_nor_is_reported(
    world: Benchmark, most: int | None
) -> None:
    every = facts(row for suite in forget_suites(world) for row in suite.rows)
    validation = validation_facts(every, SEED)
    trained, left = [], set()
    for number in range(3):
        repeat = Repeat(SEED, number)
        found = optimised.target_rows(world, PromptMode.universal, most, repeat)
        rows = found[EVERYONE]
        scored = facts(
            row for suite in optimised.scored_suites(world, PromptMode.universal, most, repeat) for row in suite.rows
        )
        assert list(found) == [EVERYONE] and len(rows) == len(facts(rows)) == (most or len(validation) // 2)
        assert facts(rows) < validation and not facts(rows) & scored
        assert scored == every - facts(rows) and scored & validation
        trained.append(facts(rows))
        left |= scored
    # A run without other attacks halves what some repeat scored: still nothing that was trained on is reported.
    assert not set.union(*trained) & (left - validation_facts(left, SEED))
    assert trained[0] != trained[1] or trained[1] != trained[2]


def test_per_item_half_of_the_attacked_facts_choose_and_all_phrasings_are_items(world: Benchmark) -> None:
    every = facts(row for suite in forget_suites(world) for row in suite.rows)
    validation = validation_facts(every, SEED)
    for number in range(2):
        repeat = Repeat(SEED, number)
        rows = [row for suite in optimised.scored_suites(world, PromptMode.per_item, 4, repeat) for row in suite.rows]
        assert len(facts(rows)) == 4 and len(facts(rows) & validation) == 2
        found = optimised.target_rows(world, PromptMode.per_item, 4, repeat)
        assert [row for some in found.values() for row in some] == rows
        assert all(row.prompt == prompt for prompt, some in found.items() for row in some)
    all_rows = [
        row for suite in optimised.scored_suites(world, PromptMode.per_item, None, Repeat(SEED)) for row in suite.rows
    ]
    assert facts(all_rows) == every


def test_it_does_not_apply_where_nothing_is_asked_or_answered(world: Benchmark) -> None:
    for change in ({"prompt": "", "plain": True}, {"response": ""}):
        for mode in PromptMode:
            with pytest.raises(Inapplicable, match=r"attack=gcg needs . forgotten facts .* has 0"):
                optimised.check_enough_facts("gcg", changed(world, **change), mode)
    first: dict[str, Row] = {}
    for row in world.suite("forget").rows:
        first.setdefault(row.fact, row)
    three = replace(world, suites=(replace(world.suite("forget"), rows=tuple(first.values())[:3]),))
    optimised.check_enough_facts("gcg", three, PromptMode.per_item)
    with pytest.raises(Inapplicable, match="needs 4 forgotten facts .* has 3"):
        optimised.check_enough_facts("gcg", three, PromptMode.universal)


def test_rows_that_do_not_fit_are_left_out_and_told(
    lab: PlainLab, models: dict[str, LoadedModel], caplog: pytest.LogCaptureFixture
) -> None:
    suites = optimised.answered_suites(lab.benchmark)
    loaded = models["target"]
    lengths = {row.id: len(loaded.chat.encode(row).ids) for suite in suites for row in suite.rows}
    room = sorted(lengths.values())[len(lengths) // 2]
    chat = InsertingChatFormat(ChatFormat(loaded.tokenizer, room + 5), lambda prompt: [0] * 5, Place.response)
    kept = {row.id for suite in optimised.suites_that_fit(chat, suites) for row in suite.rows}
    assert kept == {row for row, length in lengths.items() if length <= room}
    with caplog.at_level(logging.WARNING):
        optimised.log_left_out("gcg", chat, suites)
    assert f"leaves out {len(lengths) - len(kept)} of {len(lengths)} rows" in caplog.text
    none = InsertingChatFormat(loaded.chat, lambda prompt: [0] * 256, Place.response)
    rows: dict[str, list[Row]] = {EVERYONE: list(suites[0].rows)}
    with pytest.raises(Inapplicable, match=r"smaller attack\.gcg\.tokens"):
        optimised.targets_that_fit("gcg", none, rows)
    assert optimised.targets_that_fit("gcg", chat, rows) == {
        EVERYONE: [row for row in rows[EVERYONE] if row.id in kept]
    }


def test_points_of_an_optimisation() -> None:
    assert (
        optimised.scored_steps(0) == [0]
        and optimised.scored_steps(2) == [0, 1, 2]
        and optimised.scored_steps(90) == [0, 30, 60, 90]
    )
