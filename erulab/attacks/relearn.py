"""Relearning: fine-tunes a model on some rows and scores whether the other forgotten facts come back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from erulab.attacks.base import Attack, Attempt, FinetuneSettings, Inapplicable, Lab, Repeat, Setting
from erulab.attacks.halves import validation_half
from erulab.attacks.relearn_rows import RelearnRows, RelearnSource, RelearnSplit, SplitUnit
from erulab.attacks.weights.left_alone import unchanged
from erulab.data.rows import Benchmark, Suite
from erulab.data.stored_rows import hash_file
from erulab.errors import DataError
from erulab.evaluation.suites import forget_suites
from erulab.options import Schedule, require, require_epochs, require_not_negative, require_positive
from erulab.registry import attacks

if TYPE_CHECKING:
    from erulab.models.loaded import LoadedModel


@dataclass
class RelearnOptions:
    """Fine-tunes all weights by default; `attack=relearn_lucki` is Lucki et al. 2024 (LoRA). Each learning rate at each
    point is an attempt. If there are several, the validation half of the scored facts chooses one per model."""

    name: str = "relearn"
    samples: Optional[list[int]] = None  # numbers of rows to train on, each a setting; null: all available rows
    source: RelearnSource = RelearnSource.forget  # rows that the attacker trains on
    texts: Optional[str] = None  # with source=unrelated: a file of texts in place of the data set's unrelated rows
    mixed: bool = False  # adds one retain row per row
    split: RelearnSplit = RelearnSplit.disjoint  # facts that are scored: those that were not relearned, or all
    by: SplitUnit = SplitUnit.fact  # what a disjoint split never divides
    # learning rates that are tried; trainer.lr has no effect here, so a small one does not weaken the attack. 5e-4 is a
    # fourth of the embedded target's: twice as much destroys the target. A pretrained model may need a smaller one
    lr: list[float] = field(default_factory=lambda: [5e-4])
    # number of evenly spaced steps at which a model is scored (a learning curve); 1: the last step only
    points: int = 1
    epochs: float = 3  # passes over the rows
    steps: Optional[int] = None  # optimizer steps; wins over epochs
    batch: int = 8  # rows per optimizer step
    warmup: float = 0.05  # share of the steps in which the learning rate rises from 0
    schedule: Schedule = Schedule.linear  # how the learning rate changes after the warmup
    weight_decay: float = 0.0  # of AdamW, relative to the learning rate
    lora_rank: int = 0  # rank of the adapters that are trained; 0 trains all weights
    lora_alpha: int = 16  # adapters are scaled by lora_alpha / lora_rank
    repeats: int = 3  # runs with other splits and orders; of two runs, each relearns the half that the other scores

    def __post_init__(self) -> None:
        if self.samples is not None:
            counts = bool(self.samples) and min(self.samples) >= 0
            require(counts, "samples", "a list of row counts, such as [10,100]", self.samples)
        unrelated = self.source is RelearnSource.unrelated
        require(unrelated or self.texts is None, "texts", "null where source is not unrelated", self.texts)
        require(
            self.source is not RelearnSource.retain or not self.mixed,
            "mixed",
            "false where source is retain",
            self.mixed,
        )
        rates = bool(self.lr) and all(math.isfinite(lr) and lr >= 0 for lr in self.lr)
        require(rates and len(set(self.lr)) == len(self.lr), "lr", "a list of rates >= 0, such as [1e-4,1e-3]", self.lr)
        require_positive("points", self.points)
        require_epochs("epochs", self.epochs)
        require_positive("steps", self.steps)
        require_positive("batch", self.batch)
        require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        require_not_negative("weight_decay", self.weight_decay)
        require_not_negative("lora_rank", self.lora_rank)
        require_positive("lora_alpha", self.lora_alpha)
        require_positive("repeats", self.repeats)


@attacks.register(
    "relearn", RelearnOptions, paper="Lucki et al. 2024, arXiv:2409.18025; Deeb & Roger, arXiv:2410.08827"
)
class Relearn(Attack):
    """Fine-tunes on half of the forgotten facts and scores the other half, in every phrasing."""

    # The setting holds a hash of the file of texts, so its path is not needed.
    options_told_by_setting = ("samples", "repeats", "texts")
    changes_weights = True
    # Each model has its own best rate and steps, the oracle included.
    one_attempt_for_all_models = False

    def __init__(self, options: RelearnOptions) -> None:
        self.options = o = options
        self.repeats = o.repeats
        self._rows = RelearnRows(o.source, o.split, o.by, o.mixed, o.texts)

    def settings(self, benchmark: Benchmark, seed: int) -> list[Setting]:
        o = self.options
        self._rows.check(benchmark, seed)
        self._check_choice(benchmark, seed)
        available = min(self._rows.available(benchmark, Repeat(seed, i)) for i in range(self.repeats))
        samples = [available] if o.samples is None else o.samples
        limits = [f"attack.relearn.split={o.split.value}"] * (o.source is RelearnSource.forget)
        limits += ["attack.relearn.mixed=true: a retain row beside each"] * o.mixed
        why = f" ({', '.join(limits)})" if limits else ""
        for count in samples:
            if count > available:
                raise DataError(
                    f"attack.relearn.samples={count}, but {available} {o.source.value} rows are there to train on"
                    f"{why}; type attack.relearn.samples=[{available}]"
                )
        shared: Setting = {"source": o.source.value}
        if o.texts is not None:
            shared["texts"] = hash_file(Path(o.texts))[:10]
        if o.source is RelearnSource.forget:
            shared["split"] = o.split.value
        if self._rows.disjoint:
            shared["by"] = o.by.value
        if o.mixed:
            shared["mixed"] = True
        # If there are several rates, `chosen` names the one that was chosen.
        shared["lr"] = o.lr[0] if len(o.lr) == 1 else o.lr
        if o.points > 1:
            shared["points"] = o.points
        return [{"samples": n, **shared, "lora_rank": o.lora_rank} for n in samples]

    def scored(self, setting: Setting, benchmark: Benchmark, repeat: Repeat) -> tuple[Suite, ...]:
        return self._rows.scored(benchmark, repeat)

    def attempts(self, subject: LoadedModel, setting: Setting, lab: Lab) -> Iterator[Attempt]:
        o, taken = self.options, 0
        rows = self._rows.trained(lab.benchmark, lab.repeat, setting["samples"])
        for lr in o.lr:
            step = 0
            settings = FinetuneSettings(
                lr,
                o.epochs,
                o.steps,
                o.batch,
                o.warmup,
                o.schedule,
                o.lora_rank,
                o.lora_alpha,
                o.points,
                o.weight_decay,
            )
            for step, model in lab.finetune(subject.copy(), rows, settings):
                chosen: Setting = {"lr": lr} if len(o.lr) > 1 else {}
                if o.points > 1:
                    chosen["steps"] = step
                # Adapters are on some matrices only: in a mixture not on the experts.
                left = unchanged(subject, model) if o.lora_rank and step else {}
                yield Attempt(chosen, partial(lab.score, model), model, taken + step, left_alone=left)
            taken += step

    def _check_choice(self, benchmark: Benchmark, seed: int) -> None:
        """Checks that every repeat scores validation facts and other facts, if one of several attempts is chosen.

        Raises:
            Inapplicable: too few facts are scored.
        """
        if len(self.options.lr) == 1 and self.options.points == 1:
            return
        validation = validation_half(benchmark, seed)
        every = {row.fact_id for suite in forget_suites(benchmark) for row in suite.rows}
        for number in range(self.repeats):
            suites = self._rows.scored(benchmark, Repeat(seed, number))
            facts = {row.fact_id for suite in suites for row in suite.rows}
            if not facts & validation or not facts - validation:
                raise Inapplicable(
                    "of several learning rates or points one half of the scored facts chooses and the "
                    f"other is reported, and too few of {len(every)} facts are scored (attack.relearn.split="
                    f"{self.options.split.value}); type attack.relearn.lr=[{self.options.lr[0]:g}] "
                    "attack.relearn.points=1"
                )
