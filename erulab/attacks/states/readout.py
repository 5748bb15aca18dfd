"""What linear probes read off states: each row's value among its candidates, by a probe that never saw its fact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from erulab import draws
from erulab.attacks.base import Repeat
from erulab.attacks.states.discriminant import Array, log_posterior
from erulab.attacks.states.question import Question
from erulab.evaluation import metrics

Places = NDArray[np.int64]

FOLDS = 5  # of the validation facts: each is read by a probe that did not learn it
SHUFFLES = 5  # of the control, averaged


@dataclass(frozen=True)
class Readout:
    """Probes at one layer.

    Validation facts are read in folds, each by a probe that learned the others; what is not learned from is read by one
    that learned all. So no row is read by a probe that has seen its fact.

    states: (rows, width) of the questions; learned: (rows,) whether probes may learn from a row; validation: the facts
    among the learned that are read too.
    """

    questions: Sequence[Question]
    states: Array
    learned: NDArray[np.bool_]
    validation: frozenset[str]
    repeat: Repeat
    shrinkage: float

    def figures(self) -> dict[str, dict[str, float]]:
        """Row id -> probe_choice, probe_log_odds; probe_control, the choice of probes that learn the same values dealt
        out anew among the facts; probe_selectivity, the choice less the control."""
        values = sorted({self.questions[i].value for i in np.flatnonzero(self.learned).tolist()})
        place = {value: i for i, value in enumerate(values)}
        fold = np.array([self._fold(i) for i in range(len(self.questions))])
        found: dict[str, dict[str, float]] = {}
        for number in range(FOLDS + 1):
            read, train = np.flatnonzero(fold == number), np.flatnonzero(self.learned & (fold != number))
            if not len(read):
                continue
            labels = np.array([place[self.questions[i].value] for i in train.tolist()])
            odds = self._read(train, labels, read, place)
            facts = [self.questions[i].fact for i in train.tolist()]
            dealt = [_dealt(labels, facts, self.repeat.seed_of("probe", "control", i)) for i in range(SHUFFLES)]
            control = np.mean([self._read(train, other, read, place)[:, 0] for other in dealt], 0)
            for i, (choice, log_odds), chance in zip(read.tolist(), odds.tolist(), control.tolist(), strict=True):
                found[self.questions[i].row.id] = {
                    "probe_choice": choice,
                    "probe_control": chance,
                    "probe_log_odds": log_odds,
                    "probe_selectivity": choice - chance,
                }
        return found

    def _fold(self, row: int) -> int:
        """Where a row is read: with a part of the validation facts, after them, or never (-1)."""
        fact = self.questions[row].fact
        if fact in self.validation:
            return draws.choice(FOLDS, self.repeat.seed_of("probe", "fold", fact))
        return -1 if self.learned[row] else FOLDS

    def _read(self, train: Places, labels: Places, read: Places, place: dict[str, int]) -> Array:
        """(rows read, 2) choice and log-odds by a probe that learns these labels."""
        logs = log_posterior(self.states[train], labels, len(place), self.states[read], self.shrinkage)
        found = []
        for i, row in zip(read.tolist(), logs, strict=True):
            right = -row[place[self.questions[i].value]]
            wrong = [-row[place[value]] for value in self.questions[i].wrong if value in place]
            found.append((float(right < min(wrong)), metrics.log_odds(right, wrong)))
        return np.array(found)


def _dealt(labels: Places, facts: Sequence[str], seed: int) -> Places:
    """The labels dealt out anew among the facts: rows of one fact still have one."""
    own = dict(zip(facts, labels.tolist(), strict=True))
    order = np.random.default_rng(seed).permutation(len(own))
    dealt = dict(zip(own, np.array(list(own.values()))[order].tolist(), strict=True))
    return np.array([dealt[fact] for fact in facts])
