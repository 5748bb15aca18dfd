"""Reads each row's value among its candidates with linear probes that never saw the row's fact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from erulab import draws
from erulab.attacks.base import Repeat
from erulab.attacks.states.discriminant import Array, log_posterior
from erulab.attacks.states.probe_question import ProbeQuestion
from erulab.evaluation import metrics

Places = NDArray[np.int64]

FOLDS = 5  # folds of the validation facts: each fold is read by a probe that learned the others
SHUFFLES = 5  # shuffles over which the control is averaged


@dataclass(frozen=True)
class Readout:
    """The probes at one layer.

    Validation facts are read in folds, each by a probe that learned the other folds. Rows that are not learned from are
    read by a probe that learned all. So no row is read by a probe that has seen its fact.

    states: (rows, width) hidden states of the questions.
    learned: (rows,) whether probes may learn from a row.
    validation: the facts that are both learned from and read.
    shrinkage: see `log_posterior`.
    """

    questions: Sequence[ProbeQuestion]
    states: Array
    learned: NDArray[np.bool_]
    validation: frozenset[str]
    repeat: Repeat
    shrinkage: float

    def figures(self) -> dict[str, dict[str, float]]:
        """Maps each row id to its figures.

        probe_choice: 1 if the right value is read, else 0; probe_log_odds: of the right value, nats; probe_control:
        probe_choice of probes that learned shuffled values; probe_selectivity: probe_choice minus probe_control.
        """
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
            dealt = [
                _shuffle_labels(labels, facts, self.repeat.seed_of("probe", "control", i)) for i in range(SHUFFLES)
            ]
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
        """Returns the fold in which a row is read: below FOLDS for validation facts, FOLDS after them, -1 for never."""
        fact = self.questions[row].fact
        if fact in self.validation:
            return draws.choice(FOLDS, self.repeat.seed_of("probe", "fold", fact))
        return -1 if self.learned[row] else FOLDS

    def _read(self, train: Places, labels: Places, read: Places, place: dict[str, int]) -> Array:
        """Reads rows with a probe that learns these labels.

        Args:
            train, labels: indices of the rows to learn from, and their classes.
            read: indices of the rows to read.
            place: value -> class.
        Returns:
            (rows read, 2) choice and log-odds.
        """
        logs = log_posterior(self.states[train], labels, len(place), self.states[read], self.shrinkage)
        found = []
        for i, row in zip(read.tolist(), logs, strict=True):
            right = -row[place[self.questions[i].value]]
            wrong = [-row[place[value]] for value in self.questions[i].wrong if value in place]
            found.append((float(right < min(wrong)), metrics.log_odds(right, wrong)))
        return np.array(found)


def _shuffle_labels(labels: Places, facts: Sequence[str], seed: int) -> Places:
    """Shuffles the labels among the facts; rows of one fact keep one common label."""
    own = dict(zip(facts, labels.tolist(), strict=True))
    order = np.random.default_rng(seed).permutation(len(own))
    dealt = dict(zip(own, np.array(list(own.values()))[order].tolist(), strict=True))
    return np.array([dealt[fact] for fact in facts])
