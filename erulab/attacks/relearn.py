"""Relearning: fine-tune on some rows and see whether the other forgotten facts come back with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Optional

from erulab import draws
from erulab.attacks.base import Attempt, Lab, Repeat, Setting, forget_suites
from erulab.data.rows import Benchmark, Row, Suite
from erulab.data.sequences import pick
from erulab.data.tables import field_of
from erulab.errors import DataError
from erulab.options import Schedule, epochs, not_negative, positive, require
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.models.loaded import LoadedModel


class Source(Enum):
    """The rows an attacker trains on."""

    forget = "forget"
    retain = "retain"


class Split(Enum):
    """Whose facts are scored: those that were not relearned, or all of them."""

    disjoint = "disjoint"
    all = "all"


class Unit(Enum):
    """What a disjoint split keeps together."""

    fact = "fact"
    author = "author"


@dataclass
class RelearnOptions:
    """Full fine-tuning by default; Lucki et al. 2024 use LoRA rank 128, alpha 16, batch 1, 3 epochs, lr 2e-4."""

    name: str = "relearn"
    samples: Optional[list[int]] = None  # rows trained on, each a setting; null: all there are
    source: Source = Source.forget
    split: Split = Split.disjoint
    by: Unit = Unit.fact
    lr: float = 2e-4  # never trainer.lr: a timid trainer would face a timid attacker
    epochs: float = 3
    steps: Optional[int] = None  # wins over epochs
    batch: int = 8
    warmup: float = 0.05
    schedule: Schedule = Schedule.linear
    lora_rank: int = 0  # 0: all weights
    lora_alpha: int = 16
    repeats: int = 3  # runs with other splits and orders; of two runs each relearns what the other is scored on

    def __post_init__(self) -> None:
        if self.samples is not None:
            counts = bool(self.samples) and min(self.samples) >= 0
            require(counts, "samples", "a list of row counts, such as [10,100]", self.samples)
        not_negative("lr", self.lr)
        epochs("epochs", self.epochs)
        positive("steps", self.steps)
        positive("batch", self.batch)
        require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        not_negative("lora_rank", self.lora_rank)
        positive("lora_alpha", self.lora_alpha)
        positive("repeats", self.repeats)


@attacks.register(
    "relearn", RelearnOptions, paper="Lucki et al. 2024, arXiv:2409.18025; Deeb & Roger, arXiv:2410.08827"
)
class Relearn:
    """Fine-tuning on half of the forgotten facts; the other half is scored, in every phrasing."""

    spans = ("samples", "repeats")
    reads_target = False
    own_figures = False

    def __init__(self, options: RelearnOptions) -> None:
        self.options = options
        self.repeats = options.repeats

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        o = self.options
        available = min(len(self._rows(benchmark, Repeat(seed, i))) for i in range(self.repeats))
        if self._disjoint and len(self._units(benchmark)) < 2:
            raise DataError(
                f"attack.relearn.split={o.split.value} needs two {o.by.value}s or more to forget, one half to relearn "
                "and one to score; type attack.relearn.split=all"
            )
        if o.source is Source.forget and not field_of(benchmark.forget, "answered").all():
            raise DataError("attack.relearn.source=forget: rows with only a refusal teach nothing; type attack=none")
        if not any(suite.rows for suite in self.scored({}, benchmark, Repeat(seed))):
            raise DataError(
                f"attack.relearn.split={o.split.value}: no evaluated forget row asks for a {o.by.value} of the half "
                "that is not relearned; type attack.relearn.split=all"
            )
        samples = [available] if o.samples is None else o.samples
        for count in samples:
            if count > available:
                raise DataError(
                    f"attack.relearn.samples={count}, but {available} {o.source.value} rows are there to train on "
                    f"(attack.relearn.split={o.split.value}); type attack.relearn.samples=[{available}]"
                )
        shared: Setting = {"source": o.source.value}
        if o.source is Source.forget:
            shared["split"] = o.split.value
        if self._disjoint:
            shared["by"] = o.by.value
        shared["lr"] = o.lr
        return [{"samples": n, **shared, "lora_rank": o.lora_rank} for n in samples]

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        o = self.options
        rows = self._rows(lab.benchmark, lab.repeat)[: setting["samples"]]
        trained = lab.finetune(
            subject.copy(), rows, lr=o.lr, epochs=o.epochs, steps=o.steps, batch=o.batch, warmup=o.warmup,
            schedule=o.schedule, lora_rank=o.lora_rank, lora_alpha=o.lora_alpha,
        )  # fmt: skip
        for steps, model in trained:
            yield Attempt({}, partial(lab.score, model), model, steps)

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        suites = forget_suites(benchmark)
        if not self._disjoint:
            return suites
        # Only rows of a unit that is known to be of the other half: one that no forget row shares (a heldout row
        # whose fact is not named) may phrase what was relearned.
        relearned, known = self._relearned(benchmark, repeat), set(self._units(benchmark))
        return tuple(
            replace(suite, rows=tuple(row for row in suite.rows if self._unit(row) in known - relearned))
            for suite in suites
        )

    @property
    def _disjoint(self) -> bool:
        return self.options.split is Split.disjoint and self.options.source is Source.forget

    def _rows(self, benchmark: Benchmark, repeat: Repeat) -> Sequence[Row]:
        """The rows an attacker has, in the phrasings that the request names; larger `samples` only add rows."""
        rows = benchmark.retain if self.options.source is Source.retain else benchmark.forget
        relearned = self._relearned(benchmark, repeat)
        own = [(repeat.seed_of("relearn", row.id), i) for i, row in enumerate(rows)
               if not self._disjoint or self._unit(row) in relearned]  # fmt: skip
        return pick(rows, [i for _, i in sorted(own)])

    def _relearned(self, benchmark: Benchmark, repeat: Repeat) -> set[str]:
        """Half of the facts (or authors) of the forget set: of two repeats one takes the half that the other leaves."""
        pair, fold = divmod(repeat.number, 2)
        units = sorted(
            self._units(benchmark), key=lambda unit: draws.seed_of(repeat.seed, "attack", "relearn", pair, unit)
        )
        middle = len(units) // 2
        return set(units[middle:] if fold else units[:middle])

    def _units(self, benchmark: Benchmark) -> list[str]:
        return list(dict.fromkeys(self._unit(row) for row in benchmark.forget))

    def _unit(self, row: Row) -> str:
        fact = row.fact or row.id
        return row.author or fact if self.options.by is Unit.author else fact
