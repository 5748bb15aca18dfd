"""What an attack is given, what it tries, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from erulab import draws
from erulab.errors import DataError

if TYPE_CHECKING:
    from erulab.data.rows import Benchmark, Row, Suite
    from erulab.evaluation.evaluate import RowScore
    from erulab.models.loaded import LoadedModel
    from erulab.options import Schedule

# One `setting` object of attacks.json: what distinguishes the rows of one attack.
Setting = dict[str, Any]


class Inapplicable(DataError):
    """This data set or machine has nothing that the attack could use; the report says so in the attack's place."""


@dataclass(frozen=True)
class Repeat:
    """One of several runs of an attack that draws: what it draws is a function of the run's seed and of `number`."""

    seed: int
    number: int = 0

    def seed_of(self, *words: Any) -> int:
        """The seed of a private generator."""
        return draws.seed_of(self.seed, "attack", self.number, *words)


@dataclass(frozen=True)
class Attempt:
    """One thing the attacker tries on a model. Where there are several, the validation half of the facts chooses.

    chosen: what tells it from the attack's other attempts (a layer, a strength, a number of steps); {} if it is alone.
    score: the figures of forget rows under this attempt; called before the next attempt is made.
    changed: the model whose weights were changed, which is then asked for its utility; None: weights are as they were.
    steps: optimizer steps the attacker has taken so far.
    """

    chosen: Setting
    score: Callable[[Sequence[Suite]], list[RowScore]]
    changed: LoadedModel | None = None
    steps: int = 0


class Lab(Protocol):
    """What an attacker may use. Everything is private to one attack on one model."""

    @property
    def benchmark(self) -> Benchmark: ...

    @property
    def repeat(self) -> Repeat: ...

    @property
    def target(self) -> LoadedModel:
        """The model before unlearning, never to be changed; only for attacks that say `reads_target`."""
        ...

    @property
    def batch_tokens(self) -> int:
        """Tokens that a forward without gradient may compute; no figure depends on it but by rounding."""
        ...

    def score(self, subject: LoadedModel, suites: Sequence[Suite]) -> list[RowScore]:
        """What a model makes of the suites' rows: the figures that an evaluation gives, as far as attacks use them."""
        ...

    def finetune(
        self,
        subject: LoadedModel,
        rows: Sequence[Row],
        *,
        lr: float,
        epochs: float,
        steps: int | None,
        batch: int,
        warmup: float,
        schedule: Schedule,
        lora_rank: int,
        lora_alpha: int,
        points: int = 1,
    ) -> Iterator[tuple[int, LoadedModel]]:
        """Trains the subject in place on the rows; rank 0 trains all weights.

        Args:
            points: at how many steps, evenly spaced and the last one among them, the model is given.
        Returns:
            (steps taken, the model there, in evaluation mode). No rows, or lr 0: the subject as it is, once.
        """
        ...


class Attack(Protocol):
    """One attack, run alike on target, unlearned model and oracle. It never changes the model it is given.

    Attacks are subclasses and state what differs from these defaults.
    """

    # Options that only say which settings and repeats there are: each of them tells its own.
    spans: tuple[str, ...] = ()
    # How often it runs with other draws; 1 where it draws nothing.
    repeats: int = 1
    # Whether what it does to a model depends on the target too.
    reads_target: bool = False
    # Whether each attempt has a `changed` model: another attack can then follow it (attack=sequence).
    changes_weights: bool = False
    # Whether one of its attempts is chosen for all models, by what it brings back; else each model has its own best.
    alike: bool = True
    # Whether it measures by itself what is known, where an evaluation has no figure for it.
    own_figures: bool = False

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        """The settings it is run in, each a row group of attacks.json.

        Raises:
            DataError: what the options ask for is not there (more rows than the benchmark has).
            Inapplicable: the attack needs what the benchmark or the machine lacks.
        """
        ...

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        """The forget and held-out suites, cut to the rows that this setting is scored on: by default to none."""
        return forget_suites(benchmark)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        """What is tried, in order; what needs other weights works on `subject.copy()`."""
        ...


def scores_of(figures: Mapping[str, dict[str, float]], suites: Sequence[Suite]) -> list[RowScore]:
    """The suites' rows that have figures of an attack's own.

    Args:
        figures: row id -> figure -> value.
    """
    # Not at the top: attacks are imported where torch must not be.
    from erulab.evaluation.evaluate import RowScore

    return [
        RowScore(row.id, suite.name, suite.role.value, row.fact_id, row.author, figures[row.id])
        for suite in suites
        for row in suite.rows
        if row.id in figures
    ]


def forget_suites(benchmark: Benchmark) -> tuple[Suite, ...]:
    """The suites whose rows phrase forgotten facts."""
    return tuple(suite for suite in benchmark.suites if suite.role.value in ("forget", "heldout"))
