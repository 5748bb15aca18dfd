"""A linear probe: whether a fact's value can still be read from the hidden states, independent of the head.

The probe learns from facts that every model knows and from the validation half of the forgotten facts, and reads the
other half. Its control learns from values that are shuffled among the facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab import draws
from erulab.attacks.base import Attack, Attempt, Inapplicable, Lab, Repeat, Setting, scores_from_figures
from erulab.attacks.halves import validation_half, validation_rows
from erulab.attacks.states.layers import check_layers, last_states, layers_of
from erulab.attacks.states.probe_question import ProbeQuestion
from erulab.data.arrow_sequence import select_items
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.evaluation.suites import forget_suites
from erulab.options import require
from erulab.registry import attacks

if TYPE_CHECKING:
    import numpy as np

    from erulab.models.loaded import LoadedModel
else:
    np = lazy_loader.load("numpy")

# Limits: rows of facts that every model knows, and rows of one set in which they are searched.
KNOWN_ROWS, SEARCHED_ROWS = 1000, 5000


@dataclass
class ProbeOptions:
    name: str = "probe"
    layers: Optional[list[int]] = None  # l of h_l, 1 to L; null: all
    shrinkage: float = 0.1  # weight of a multiple of the identity in the states' covariance

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
    """Reads the value from h_l with a linear discriminant that never saw the fact, with a shuffled-label control."""

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
        known = {question.value for question in _training_questions(benchmark, repeat)}

        def readable(row: Row) -> bool:
            question = ProbeQuestion.from_row(row)
            return question is not None and question.value in known and not known.isdisjoint(question.wrong)

        return tuple(replace(suite, rows=tuple(filter(readable, suite.rows))) for suite in forget_suites(benchmark))

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        # Not at the top: this file is imported where torch must not be.
        from erulab.attacks.states.discriminant import rotate_to_span
        from erulab.attacks.states.readout import Readout

        layers = layers_of(subject, self.options.layers, "probe")
        learned = {question.row.id: question for question in _training_questions(lab.benchmark, lab.repeat)}
        suites = self.scored(setting, lab.benchmark, lab.repeat)
        read = {question.row.id: question for suite in suites for question in _probe_questions(suite.rows)}
        questions = list((learned | read).values())
        encoded = [question.encoded(subject.chat) for question in questions]
        states = last_states(subject, encoded, layers).double().numpy()
        own = np.array([question.row.id in learned for question in questions])
        half = validation_half(lab.benchmark, lab.repeat.seed)
        for i, layer in enumerate(layers):
            readout = Readout(questions, rotate_to_span(states[:, i]), own, half, lab.repeat, setting["shrinkage"])
            yield Attempt({"layer": layer}, partial(scores_from_figures, readout.figures()))


def _training_questions(benchmark: Benchmark, repeat: Repeat) -> list[ProbeQuestion]:
    """Returns the rows a probe may learn from: rows that every model knows, and rows of the validation half.

    Only rows with a wrong value that is the right value of another row are used, because a probe cannot separate
    values that each occur once.
    """
    kept = [benchmark.retain, *(suite.rows for suite in benchmark.suites if suite.role is Role.RETAIN)]
    known = {row.id: row for rows in kept for row in _searched_rows(rows, repeat)}
    order = sorted(known, key=lambda row_id: repeat.seed_of("probe", "known", row_id))
    some, half = (
        _probe_questions(known[row_id] for row_id in order),
        _probe_questions(validation_rows(benchmark, repeat.seed)),
    )
    values = {question.value for question in (*some, *half)}
    some, half = ([one for one in part if not values.isdisjoint(one.wrong)] for part in (some, half))
    return [*some[:KNOWN_ROWS], *half]


def _searched_rows(rows: Sequence[Row], repeat: Repeat) -> Sequence[Row]:
    """Returns at most SEARCHED_ROWS rows: a corpus can have millions of rows, and none of them a question."""
    if len(rows) <= SEARCHED_ROWS:
        return rows
    return select_items(rows, draws.permutation(len(rows), repeat.seed_of("probe", "looked at"))[:SEARCHED_ROWS])


def _probe_questions(rows: Iterable[Row]) -> list[ProbeQuestion]:
    return [question for row in rows if (question := ProbeQuestion.from_row(row)) is not None]
