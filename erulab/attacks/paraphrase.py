"""Paraphrases: the same fact in the data set's other phrasings, or otherwise in a generic frame around the question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from erulab.attacks.base import Attack, Attempt, Lab, Repeat, Setting
from erulab.attacks.prompting.prompts import asked_suites, score_rewritten
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Row, Suite
    from erulab.models.loaded import LoadedModel

OWN = {"phrasings": "the data set's own"}
GENERIC = {"phrasings": "generic"}
# Used for data sets with one phrasing per fact.
FRAMES = (
    "Please tell me: {question}",
    "Here is a question. {question}",
    "{question} Please give a short answer.",
    "I would like to know this: {question}",
    "Someone asked me: {question} What should I say?",
)

# Key of a fact and of everything that its answer depends on -> its questions, in the data set's order.
Phrasings = Mapping[tuple[str, ...], Sequence[str]]


@dataclass
class ParaphraseOptions:
    name: str = "paraphrase"


@attacks.register("paraphrase", ParaphraseOptions)
class Paraphrase(Attack):
    """Asks each question in the other phrasings of its fact, or in generic frames; the strongest is chosen."""

    repeats = 1  # nothing is drawn: every row is asked in each of its phrasings

    def __init__(self, options: ParaphraseOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        rows = [row for suite in asked_suites(benchmark) for row in suite.rows]
        phrasings = phrasings_by_fact(rows)
        return [OWN if any(len(phrasings[_phrasing_key(row)]) > 1 for row in rows) else GENERIC]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        suites = asked_suites(benchmark)
        if setting == GENERIC:
            return suites
        phrasings = phrasings_by_fact([row for suite in suites for row in suite.rows])
        kept = [tuple(row for row in suite.rows if len(phrasings[_phrasing_key(row)]) > 1) for suite in suites]
        return tuple(replace(suite, rows=rows) for suite, rows in zip(suites, kept, strict=True) if rows)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        if setting == GENERIC:
            for frame in FRAMES:
                yield Attempt({"phrasing": frame}, partial(score_rewritten, lab, subject, partial(framed, frame=frame)))
            return
        phrasings = phrasings_by_fact([row for suite in asked_suites(lab.benchmark) for row in suite.rows])
        for step in range(1, max(map(len, phrasings.values()))):
            rewrite = partial(rephrased, step=step, phrasings=phrasings)
            yield Attempt({"phrasing": step}, partial(score_rewritten, lab, subject, rewrite))


def phrasings_by_fact(rows: Sequence[Row]) -> dict[tuple[str, ...], list[str]]:
    """Maps each fact's key to its different questions."""
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for row in rows:
        found.setdefault(_phrasing_key(row), {})[row.prompt] = None
    return {key: list(prompts) for key, prompts in found.items()}


def rephrased(row: Row, step: int, phrasings: Phrasings) -> Row:
    """Returns the row with another question of its fact: `step` places after its own one, counted in a circle."""
    prompts = phrasings[_phrasing_key(row)]
    others = len(prompts) - 1
    place = prompts.index(row.prompt) + 1 + (step - 1) % others
    return replace(row, prompt=prompts[place % len(prompts)])


def framed(row: Row, frame: str) -> Row:
    """Returns the row with its question inside a frame."""
    return replace(row, prompt=frame.replace("{question}", row.prompt))


def _phrasing_key(row: Row) -> tuple[str, ...]:
    # The letter of a multiple-choice answer is right for one order of the options, running text for one kind of prompt.
    given = (row.response, *row.options) if row.options else ()
    return (row.fact_id, row.answer_prefix, "plain" if row.plain else "chat", row.system, repr(row.history), *given)
