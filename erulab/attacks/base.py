"""The interface of an attack: what it is given, what it tries and what it returns. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from erulab import draws
from erulab.data.rows import Benchmark, Row, Suite
from erulab.errors import DataError
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import forget_suites
from erulab.options import Schedule

if TYPE_CHECKING:
    from erulab.models.loaded import LoadedModel

# The `setting` object of a row of attacks.json: what distinguishes the settings of one attack.
Setting = dict[str, Any]


class Inapplicable(DataError):
    """The data set or the machine lacks something that the attack needs; the report says so in place of a figure."""


@dataclass(frozen=True)
class Repeat:
    """One of several runs of an attack with other random draws.

    Everything that is drawn is a function of the run's seed and of the repeat's number.
    """

    seed: int
    number: int = 0

    def seed_of(self, *words: Any) -> int:
        """Returns the seed of a random generator for one purpose, which the words name."""
        return draws.seed_of(self.seed, "attack", self.number, *words)


@dataclass(frozen=True)
class Attempt:
    """One thing the attacker tries on a model. If there are several, the validation half of the facts chooses one.

    chosen: what distinguishes this attempt (a layer, a strength, a number of steps); {} if there is only one.
    score: computes the row scores of forget suites under this attempt; called before the next attempt is made.
    changed: the model with changed weights, whose utility is then scored; None if the weights are unchanged.
    steps: optimizer steps the attacker has taken so far, earlier attempts included.
    remark: what a reader of the attack's figures must know of this attempt on this model; shown for the unlearned one.
    left_alone: matrix of a block that the attack should have changed and left as it is -> its share of the weights of
        all blocks' matrices. If they are many, the attack counts only where it brings knowledge back.
    """

    chosen: Setting
    score: Callable[[Sequence[Suite]], list[RowScore]]
    changed: LoadedModel | None = None
    steps: int = 0
    remark: str = ""
    left_alone: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FinetuneSettings:
    """The settings by which an attacker fine-tunes a model.

    lr: peak learning rate; 0 trains nothing.
    epochs: passes over the rows; `steps`, if given, wins.
    batch: rows per optimizer step.
    warmup: share of the steps in which the learning rate rises.
    lora_rank: rank of the adapters; 0 trains all weights.
    points: number of evenly spaced steps at which the model is returned; the last step is one of them.
    weight_decay: of AdamW, relative to the learning rate.
    """

    lr: float
    epochs: float
    steps: int | None
    batch: int
    warmup: float
    schedule: Schedule
    lora_rank: int
    lora_alpha: int
    points: int = 1
    weight_decay: float = 0.0


class Lab(Protocol):
    """The data and tools that an attack may use while it attacks one model."""

    @property
    def benchmark(self) -> Benchmark: ...

    @property
    def repeat(self) -> Repeat: ...

    @property
    def target(self) -> LoadedModel:
        """The model before unlearning, which must not be changed; only for attacks with `reads_target`."""
        ...

    @property
    def batch_tokens(self) -> int:
        """Tokens that one forward without gradient may compute; figures depend on it by rounding only."""
        ...

    def score(self, subject: LoadedModel, suites: Sequence[Suite]) -> list[RowScore]:
        """Scores the suites' rows as an evaluation does, with the figures that attacks compare."""
        ...

    def finetune(
        self, subject: LoadedModel, rows: Sequence[Row], settings: FinetuneSettings
    ) -> Iterator[tuple[int, LoadedModel]]:
        """Fine-tunes the subject in place on the rows.

        Returns:
            (steps taken, the model after them in evaluation mode), `settings.points` times; if there are no rows or lr
            is 0, once (0, the unchanged subject).
        """
        ...


class Attack(ABC):
    """One attack, run in the same way on target, unlearned model and oracle. It must not change the model it is given.

    Subclasses override the attributes that differ from these defaults.
    """

    # Options whose values are part of `setting` or number the repeats, so that the cache key need not hold them.
    options_told_by_setting: tuple[str, ...] = ()
    # Number of runs with other random draws; 1 if nothing is drawn.
    repeats: int = 1
    # Whether the attack on any model depends on the target as well.
    reads_target: bool = False
    # Whether every attempt has a `changed` model, so that another attack can follow it (attack=sequence).
    changes_weights: bool = False
    # Whether one attempt is chosen for all three models, by what it brings back; otherwise each model has its own best.
    one_attempt_for_all_models: bool = True
    # Whether the attack measures knowledge itself, so that it can run where an evaluation has no figure for it.
    own_figures: bool = False

    @abstractmethod
    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        """Returns the settings in which the attack runs; each gets its own group of rows in attacks.json.

        Raises:
            DataError: the options ask for something that is not there (more rows than the benchmark has).
            Inapplicable: the benchmark or the machine lacks something that the attack needs.
        """

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        """Returns the suites with the rows on which this setting is scored; by default all forget and held-out rows."""
        return forget_suites(benchmark)

    @abstractmethod
    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        """Yields everything that is tried, in order. An attempt with other weights works on `subject.copy()`."""


def scores_from_figures(figures: Mapping[str, dict[str, float]], suites: Sequence[Suite]) -> list[RowScore]:
    """Returns row scores with an attack's own figures, for those rows of the suites that have some.

    Args:
        figures: row id -> figure -> value.
    """
    return [
        RowScore(row.id, suite.name, suite.role.value, row.fact_id, row.author, figures[row.id])
        for suite in suites
        for row in suite.rows
        if row.id in figures
    ]
