"""Optimised prompts: which facts they are optimised for, and which facts are scored. No torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from erulab.attacks.base import Inapplicable, Repeat
from erulab.attacks.halves import validation_half
from erulab.data.rows import Benchmark, Row, Suite
from erulab.evaluation.suites import forget_suites

if TYPE_CHECKING:
    from erulab.tokens.insertion import InsertingChatFormat

log = logging.getLogger(__name__)

T = TypeVar("T")

POINTS = 3  # steps of an optimisation, in addition to its beginning, at which the validation facts are scored
EVERYONE = ""  # the owner of a universal prompt


class PromptMode(Enum):
    """The rows that share one optimised prompt."""

    universal = "universal"  # one prompt for all rows, optimised on facts that are not scored
    # One prompt per question, optimised on its own response: the oracle tells how much any response would gain.
    per_item = "per_item"


def scored_steps(steps: int) -> list[int]:
    """Returns the steps at which there is an attempt: 0, and evenly spaced steps up to the last."""
    return sorted({round(steps * i / POINTS) for i in range(POINTS + 1)})


def check_enough_facts(name: str, benchmark: Benchmark, mode: PromptMode) -> None:
    """Checks that enough forgotten facts can be trained on, can choose and can be reported.

    Raises:
        Inapplicable: too few forgotten facts have a question and a response.
    """
    least = 4 if mode is PromptMode.universal else 2
    count = len(set(_facts(answered_suites(benchmark))))
    if count < least:
        raise Inapplicable(
            f"attack={name} needs {least} forgotten facts or more with a prompt and a response to optimise for "
            f"(some are trained on, some choose, some are reported), and {benchmark.name} has {count}"
        )


def answered_suites(benchmark: Benchmark) -> tuple[Suite, ...]:
    """Returns the forget suites without rows that have no prompt (running text) or no response."""
    suites = (
        replace(suite, rows=tuple(row for row in suite.rows if row.prompt and row.response))
        for suite in forget_suites(benchmark)
    )
    return tuple(suite for suite in suites if suite.rows)


def scored_suites(benchmark: Benchmark, mode: PromptMode, facts: int | None, repeat: Repeat) -> tuple[Suite, ...]:
    """Returns the suites with the rows that are scored.

    Universal: all facts that the prompt is not optimised on. Per item: `facts` facts, half of them validation facts.

    Args:
        facts: see `GcgOptions.facts`; None stands for all.
    """
    suites = answered_suites(benchmark)
    every = dict.fromkeys(_facts(suites))
    if mode is PromptMode.universal:
        left = set(every) - _trained_facts(benchmark, facts, repeat)
    else:
        validation = validation_half(benchmark, repeat.seed)
        ordered = sorted(every, key=lambda fact: Repeat(repeat.seed).seed_of("optimised", fact))
        count = len(ordered) if facts is None else facts
        chosen = [fact for fact in ordered if fact in validation][: count // 2]
        left = {*chosen, *[fact for fact in ordered if fact not in validation][: count - len(chosen)]}
    kept = (replace(suite, rows=tuple(row for row in suite.rows if row.fact_id in left)) for suite in suites)
    return tuple(suite for suite in kept if suite.rows)


def target_rows(benchmark: Benchmark, mode: PromptMode, facts: int | None, repeat: Repeat) -> dict[str, list[Row]]:
    """Maps the owner of each optimised prompt to the rows whose answers it is optimised for.

    Per item, the owners are the scored questions. Universal, there is one owner with `facts` facts of the validation
    half, each in one phrasing. These are at most half of the validation half, because the rest of it chooses the
    attempt, and none of them is scored.

    Args:
        facts: see `GcgOptions.facts`; None stands for all.
    """
    if mode is PromptMode.per_item:
        found: dict[str, list[Row]] = {}
        for suite in scored_suites(benchmark, mode, facts, repeat):
            for row in suite.rows:
                found.setdefault(row.prompt, []).append(row)
        return found
    suites = answered_suites(benchmark)
    trained = _trained_facts(benchmark, facts, repeat)
    rows: dict[str, Row] = {}
    for suite in suites:
        for row in suite.rows:
            if row.fact_id in trained:
                rows.setdefault(row.fact_id, row)
    return {EVERYONE: list(rows.values())}


def prompt_lookup(own: Mapping[str, T], mode: PromptMode) -> Callable[[str], T]:
    """Returns a function that maps a question to the value of its owner."""
    return (lambda prompt: own[prompt]) if mode is PromptMode.per_item else (lambda prompt: own[EVERYONE])


def suites_that_fit(chat: InsertingChatFormat, suites: Sequence[Suite]) -> list[Suite]:
    """Returns the suites without rows whose lengthened prompt and response do not fit the model's context."""
    return [replace(suite, rows=tuple(row for row in suite.rows if chat.fits(row))) for suite in suites]


def targets_that_fit(
    attack: str, chat: InsertingChatFormat, targets: Mapping[str, Sequence[Row]]
) -> dict[str, list[Row]]:
    """Returns the targets without rows that do not fit the model's context.

    Raises:
        Inapplicable: no row is left.
    """
    kept = {owner: [row for row in rows if chat.fits(row)] for owner, rows in targets.items()}
    kept = {owner: rows for owner, rows in kept.items() if rows}
    if not kept:
        raise Inapplicable(
            f"attack={attack}: no prompt that it would be optimised on leaves room for attack.{attack}.tokens and the "
            f"response in the {chat.limit(None)} tokens that the model can read; type a smaller attack.{attack}.tokens"
        )
    return kept


def log_left_out(attack: str, chat: InsertingChatFormat, suites: Sequence[Suite]) -> None:
    """Logs how many rows do not fit the model's context."""
    rows = [row for suite in suites for row in suite.rows]
    gone = sum(not chat.fits(row) for row in rows)
    if gone:
        log.warning(
            "attack %s leaves out %d of %d rows: prompt, inserted tokens and response do not fit into %d tokens",
            attack,
            gone,
            len(rows),
            chat.limit(None),
        )


def _trained_facts(benchmark: Benchmark, facts: int | None, repeat: Repeat) -> set[str]:
    validation = validation_half(benchmark, repeat.seed).intersection(_facts(answered_suites(benchmark)))
    ordered = sorted(validation, key=lambda fact: repeat.seed_of("optimised", fact))
    half = len(ordered) // 2
    return set(ordered[: half if facts is None else min(facts, half)])


def _facts(suites: Iterable[Suite]) -> list[str]:
    return [row.fact_id for suite in suites for row in suite.rows]
