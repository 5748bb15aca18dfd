"""The data sets and the settings that all stages of a run share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from erulab.attacks.halves import forgotten_facts, validation_facts, validation_half
from erulab.costs.ledger import Ledger
from erulab.data.rows import Benchmark, Suite
from erulab.evaluation.external.base import ExternalBenchmark
from erulab.evaluation.suites import evaluated_rows, selected_suites
from erulab.models.base import ModelSource
from erulab.options import EvaluationOptions, Facts, Keep, RunConfig, Stage
from erulab.ranks import Ranks
from erulab.stages.cache import Cache
from erulab.stages.tracking import Tracker
from erulab.tokens.batch import Encoded
from erulab.tokens.chat import ChatFormat
from erulab.tokens.encoder import Encoder
from erulab.tokens.truncation import truncate_to_context
from erulab.training.batches import Split
from erulab.training.encode_rows import content_hash
from erulab.training.loader import ModelLoader
from erulab.training.stopping import StopRequest

# Draws the half of the facts by which tuning chooses: that of the attacks of seed 0, so that both leave out the same.
TUNING_SEED = 0


@dataclass
class RowsAsRead:
    """The evaluated rows as one tokenizer reads them: (role, content hash) of each suite, the number of rows, and the
    number of rows with words that the tokenizer does not know."""

    suites: dict[str, tuple[str, str]] = field(default_factory=dict)
    rows: int = 0
    unknown: int = 0


@dataclass
class LoadedBenchmark:
    """A data set or benchmark in this run: as its files have it, and as the run's model reads it."""

    raw: Benchmark  # as its files have it
    fitted: Benchmark  # its prompts truncated to the model's context
    identity: dict[str, Any]  # of the content of its files, never of their paths: part of stage keys
    encoder: Encoder
    evaluation: EvaluationOptions

    @cached_property
    def selected(self) -> Benchmark:
        """The fitted benchmark with only the suites that `evaluation.suites` names, possibly none."""
        return dataclasses.replace(self.fitted, suites=selected_suites(self.fitted, self.evaluation.suites))

    @property
    def identity_of_selected(self) -> dict[str, tuple[str, str]]:
        """Role and content hash of each selected suite: part of stage keys.

        Raises:
            DataError: the model cannot read a row, which the message names.
        """
        return self._read_by_own_model.suites

    @property
    def unknown_words(self) -> tuple[int, int]:
        """The number of evaluated rows with words that the tokenizer does not know, and the number of all of them.

        Raises:
            DataError: as `identity_of_selected`.
        """
        return self._read_by_own_model.unknown, self._read_by_own_model.rows

    @cached_property
    def _read_by_own_model(self) -> RowsAsRead:
        return self.read_by(self.encoder.chat)

    def read_by(self, chat: ChatFormat) -> RowsAsRead:
        """Encodes all evaluated rows with the chat format of a model.

        Raises:
            DataError: the model cannot read a row, which the message names.
        """
        read = RowsAsRead()

        def encode(suite: Suite) -> Iterator[Encoded]:
            for row in evaluated_rows(suite, self.evaluation):
                one = chat.encode(row)
                read.rows += 1
                read.unknown += chat.unknown_id is not None and chat.unknown_id in one.ids
                yield one

        for suite in self.selected.suites:
            read.suites[suite.name] = suite.role.value, content_hash(encode(suite))
        return read


def fit_benchmark(
    raw: Benchmark, identity: dict[str, Any], chat: ChatFormat, config: RunConfig, *, measured_only: bool
) -> LoadedBenchmark:
    """Truncates the prompts of a data set or benchmark to the context of the run's model.

    Args:
        raw: the benchmark as its files have it.
        identity: identifies the content of these files.
        measured_only: leaves out the rows that are only trained on.
    """
    read = raw.measured_only() if measured_only else raw
    cache = Path(config.cache)
    encoder = Encoder(chat, read.max_length, cache)
    return LoadedBenchmark(raw, truncate_to_context(read, encoder, cache), identity, encoder, config.evaluation)


@dataclass
class Context:
    """One rank's view of a run."""

    config: RunConfig
    data: LoadedBenchmark  # the data set that is unlearned
    extra_benchmarks: tuple[LoadedBenchmark, ...]  # measured beside it
    source: ModelSource
    loader: ModelLoader
    cache: Cache
    ledger: Ledger  # of all models that the loader loads
    ranks: Ranks
    device: torch.device
    tracker: Tracker
    stop: StopRequest
    external_benchmarks: tuple[ExternalBenchmark, ...] = ()  # asked and scored by other programs

    @property
    def benchmark(self) -> Benchmark:
        """The data set that is unlearned, as the run's model reads it."""
        return self.data.fitted

    @property
    def benchmarks(self) -> tuple[LoadedBenchmark, ...]:
        """The data set that is unlearned, and the benchmarks measured beside it."""
        return (self.data, *self.extra_benchmarks)

    @property
    def encoder(self) -> Encoder:
        return self.data.encoder

    @property
    def chat(self) -> ChatFormat:
        return self.encoder.chat

    @property
    def unlearns(self) -> bool:
        """Whether this run makes the unlearned model, or takes target or oracle for it (methods none and retrain)."""
        return Stage.unlearn in self.config.stages and self.config.model.unlearned is None

    @property
    def keeps_best(self) -> bool:
        """Whether the unlearned model is the best of several steps (`trainer.keep=best`), chosen by half of the facts.

        It holds for methods that train nothing too: they are compared on the same reported half.
        """
        return self.config.trainer.keep is Keep.best and self.config.model.unlearned is None

    @cached_property
    def choosing_facts(self) -> frozenset[str]:
        """The facts to forget that choose the step that is kept; empty if no step is chosen."""
        if not self.keeps_best:
            return frozenset()
        if self.config.evaluation.facts is not Facts.all:
            # Not the seed's: a step of one seed must not be chosen by facts that a run of another seed reports.
            return self._validation_facts & forgotten_facts(self.data.selected)
        return validation_half(self.data.selected, self.config.seed)

    @cached_property
    def unreported_facts(self) -> frozenset[str]:
        """The facts to forget that figures leave out, because something was chosen by them, or will be reported."""
        if self.config.evaluation.facts is Facts.validation:
            return forgotten_facts(self.data.fitted) - self._validation_facts
        if self.config.evaluation.facts is Facts.reported:
            return self._validation_facts
        return self.choosing_facts

    @cached_property
    def _validation_facts(self) -> frozenset[str]:
        # Of all suites, and of one seed: the half that tunes is the same in every run on this data set.
        return validation_facts(forgotten_facts(self.data.fitted), TUNING_SEED)

    @property
    def attacks(self) -> bool:
        """Whether this run attacks its models."""
        return Stage.attack in self.config.stages and bool(self.config.attack)

    def encoder_of(self, chat: ChatFormat) -> Encoder:
        """Returns the run's own encoder, unless a given model has another chat format."""
        if chat.identity() == self.chat.identity():
            return self.encoder
        return Encoder(chat, self.benchmark.max_length, Path(self.config.cache))

    def split(self, micro_batch: int | None) -> Split:
        """Returns how a stage cuts its global batches: by its own micro batch if set, else by the trainer's budget."""
        return Split(micro_batch, self.config.trainer.micro_tokens if micro_batch is None else None)
