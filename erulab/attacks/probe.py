"""A linear probe: is a fact's value still written in the states, whatever the head makes of them?

The probe learns from facts that every model knows and from the validation half of the forgotten ones, and reads the
other half. Its control learns from values dealt out anew among the facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab import draws
from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Repeat, Setting, forget_suites, scores_of
from erulab.attacks.halves import validation_half, validation_rows
from erulab.attacks.states.layers import check_layers, last_states, layers_of
from erulab.attacks.states.question import Question
from erulab.data.arrow_sequence import select_items
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.options import require
from erulab.registry import attacks

if TYPE_CHECKING:
    import numpy as np

    from erulab.models.loaded import LoadedModel
else:
    np = lazy_loader.load("numpy")

# At most, of the facts that every model knows; and of the rows of a set that are looked through for them.
KNOWN_ROWS, LOOKED_AT = 1000, 5000


@dataclass
class ProbeOptions:
    name: str = "probe"
    layers: Optional[list[int]] = None  # l of h_l, from 1 to L; null: all
    shrinkage: float = 0.1  # of the states' covariance, to a multiple of the identity

    def __post_init__(self) -> None:
        check_layers(self.layers)
        require(0 < self.shrinkage <= 1, "shrinkage", "above 0 and at most 1", self.shrinkage)


@attacks.register(
    "probe",
    ProbeOptions,
    paper="Alain & Bengio 2016, arXiv:1610.01644; Hewitt & Liang 2019, arXiv:1909.03368",
    needs="rows with candidate values or options",
)
class Probe(Attack):
    """Reads the value off h_l by a linear discriminant that never saw the fact, with a shuffled-label control."""

    own_figures = True

    def __init__(self, options: ProbeOptions) -> None:
        self.options = options

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        if not any(suite.rows for suite in self.scored({}, benchmark, Repeat(seed))):
            raise Inapplicable(
                "a linear probe tells a row's value from its candidates or options, and learns from other rows with "
                "the same values; no forget row that is measured has such a value"
            )
        return [{"shrinkage": self.options.shrinkage}]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        known = {question.value for question in _learned(benchmark, repeat)}

        def readable(row: Row) -> bool:
            question = Question.of(row)
            return question is not None and question.value in known and not known.isdisjoint(question.wrong)

        return tuple(replace(suite, rows=tuple(filter(readable, suite.rows))) for suite in forget_suites(benchmark))

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        # Not at the top: this file is imported where torch must not be.
        from erulab.attacks.states.discriminant import rotated
        from erulab.attacks.states.readout import Readout

        layers = layers_of(subject, self.options.layers, "probe")
        learned = {question.row.id: question for question in _learned(lab.benchmark, lab.repeat)}
        suites = self.scored(setting, lab.benchmark, lab.repeat)
        read = {question.row.id: question for suite in suites for question in _questions(suite.rows)}
        questions = list((learned | read).values())
        encoded = [question.encoded(subject.chat) for question in questions]
        states = last_states(subject, encoded, layers).double().numpy()
        own = np.array([question.row.id in learned for question in questions])
        half = validation_half(lab.benchmark, lab.repeat.seed)
        for i, layer in enumerate(layers):
            readout = Readout(questions, rotated(states[:, i]), own, half, lab.repeat, setting["shrinkage"])
            yield Attempt({"layer": layer}, partial(scores_of, readout.figures()))


def _learned(benchmark: Benchmark, repeat: Repeat) -> list[Question]:
    """What a probe may learn from: rows that every model knows, and those of the validation half.

    Only rows with a wrong value that is right in another row: nothing tells apart answers that each occur once.
    """
    kept = [benchmark.retain, *(suite.rows for suite in benchmark.suites if suite.role is Role.RETAIN)]
    known = {row.id: row for rows in kept for row in _some(rows, repeat)}
    order = sorted(known, key=lambda row_id: repeat.seed_of("probe", "known", row_id))
    some, half = _questions(known[row_id] for row_id in order), _questions(validation_rows(benchmark, repeat.seed))
    values = {question.value for question in (*some, *half)}
    some, half = ([one for one in part if not values.isdisjoint(one.wrong)] for part in (some, half))
    return [*some[:KNOWN_ROWS], *half]


def _some(rows: Sequence[Row], repeat: Repeat) -> Sequence[Row]:
    """As many rows as are looked at: a corpus can have millions, and none that is a question."""
    if len(rows) <= LOOKED_AT:
        return rows
    return select_items(rows, draws.permutation(len(rows), repeat.seed_of("probe", "looked at"))[:LOOKED_AT])


def _questions(rows: Iterable[Row]) -> list[Question]:
    return [question for row in rows if (question := Question.of(row)) is not None]
