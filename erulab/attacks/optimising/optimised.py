"""Prompts that are optimised against a model: which facts they are optimised for, and which are scored. No torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from erulab.attacks.base import Inapplicable, Repeat, forget_suites
from erulab.attacks.halves import validation_half
from erulab.data.rows import Benchmark, Row, Suite

if TYPE_CHECKING:
    from erulab.tokens.insertion import Inserted

log = logging.getLogger(__name__)

T = TypeVar("T")

POINTS = 3  # along an optimisation, beside its beginning, at which the attacker looks at the validation facts
EVERYONE = ""  # the owner of a universal prompt


class Mode(Enum):
    """For whom a prompt is optimised."""

    universal = "universal"  # one for all, on facts that are not scored
    per_item = "per_item"  # one for each prompt, on its own response: the oracle tells what any response would gain


def points(steps: int) -> list[int]:
    """Steps at which there is an attempt: 0, and evenly spaced ones up to the last."""
    return sorted({round(steps * i / POINTS) for i in range(POINTS + 1)})


def check(name: str, benchmark: Benchmark, mode: Mode) -> None:
    """
    Raises:
        Inapplicable: too few forgotten facts have a question and a response.
    """
    least = 4 if mode is Mode.universal else 2
    count = len(set(_facts(asked(benchmark))))
    if count < least:
        raise Inapplicable(
            f"attack={name} needs {least} forgotten facts or more with a prompt and a response to optimise for "
            f"(some are trained on, some choose, some are reported), and {benchmark.name} has {count}"
        )


def asked(benchmark: Benchmark) -> tuple[Suite, ...]:
    """Forget suites, without rows that ask nothing (a text that is learned as it is) or have no response."""
    suites = (
        replace(suite, rows=tuple(row for row in suite.rows if row.prompt and row.response))
        for suite in forget_suites(benchmark)
    )
    return tuple(suite for suite in suites if suite.rows)


def scored(benchmark: Benchmark, mode: Mode, facts: int | None, repeat: Repeat) -> tuple[Suite, ...]:
    """Universal: all but the facts trained on. Per item: `facts` of them, half from the validation half."""
    suites = asked(benchmark)
    every = dict.fromkeys(_facts(suites))
    if mode is Mode.universal:
        left = set(every) - _trained(benchmark, facts, repeat)
    else:
        validation = validation_half(benchmark, repeat.seed)
        ordered = sorted(every, key=lambda fact: Repeat(repeat.seed).seed_of("optimised", fact))
        count = len(ordered) if facts is None else facts
        chosen = [fact for fact in ordered if fact in validation][: count // 2]
        left = {*chosen, *[fact for fact in ordered if fact not in validation][: count - len(chosen)]}
    kept = (replace(suite, rows=tuple(row for row in suite.rows if row.fact_id in left)) for suite in suites)
    return tuple(suite for suite in kept if suite.rows)


def targets(benchmark: Benchmark, mode: Mode, facts: int | None, repeat: Repeat) -> dict[str, list[Row]]:
    """Owner of an optimised prompt -> the rows whose answers it is to bring about.

    Per item: each scored prompt. Universal: one owner, with `facts` facts of the validation half, each in one phrasing:
    at most half of that half, and none that is scored, since the others choose the attempt.
    """
    if mode is Mode.per_item:
        found: dict[str, list[Row]] = {}
        for suite in scored(benchmark, mode, facts, repeat):
            for row in suite.rows:
                found.setdefault(row.prompt, []).append(row)
        return found
    suites = asked(benchmark)
    trained = _trained(benchmark, facts, repeat)
    rows: dict[str, Row] = {}
    for suite in suites:
        for row in suite.rows:
            if row.fact_id in trained:
                rows.setdefault(row.fact_id, row)
    return {EVERYONE: list(rows.values())}


def of_owner(own: Mapping[str, T], mode: Mode) -> Callable[[str], T]:
    """What belongs to a prompt."""
    return (lambda prompt: own[prompt]) if mode is Mode.per_item else (lambda prompt: own[EVERYONE])


def fitting(chat: Inserted, suites: Sequence[Suite]) -> list[Suite]:
    """The suites without the rows that the longer prompt leaves no room for."""
    return [replace(suite, rows=tuple(row for row in suite.rows if chat.fits(row))) for suite in suites]


def fitting_targets(attack: str, chat: Inserted, targets: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """The targets without the rows that do not fit.

    Raises:
        Inapplicable: none is left.
    """
    kept = {owner: [row for row in rows if chat.fits(row)] for owner, rows in targets.items()}
    kept = {owner: rows for owner, rows in kept.items() if rows}
    if not kept:
        raise Inapplicable(
            f"attack={attack}: no prompt that it would be optimised on leaves room for attack.{attack}.tokens and the "
            f"response in the {chat.limit(None)} tokens that the model can read; type a smaller attack.{attack}.tokens"
        )
    return kept


def tell_left_out(attack: str, chat: Inserted, suites: Sequence[Suite]) -> None:
    """A line of the log where rows do not fit."""
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


def _trained(benchmark: Benchmark, facts: int | None, repeat: Repeat) -> set[str]:
    validation = validation_half(benchmark, repeat.seed).intersection(_facts(asked(benchmark)))
    ordered = sorted(validation, key=lambda fact: repeat.seed_of("optimised", fact))
    half = len(ordered) // 2
    return set(ordered[: half if facts is None else min(facts, half)])


def _facts(suites: Iterable[Suite]) -> list[str]:
    return [row.fact_id for suite in suites for row in suite.rows]
