"""What every stage works with, and how stages come by models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from erulab.costs.ledger import Ledger
from erulab.data.rows import Benchmark, Suite
from erulab.errors import DataError, IntegrityFault
from erulab.evaluation.evaluate import named, rows_of
from erulab.models import loading
from erulab.models.base import ModelSource
from erulab.models.loaded import LoadedModel
from erulab.models.policy import Policy
from erulab.options import EvaluationOptions, RunConfig
from erulab.ranks import Ranks
from erulab.stages.cache import Cache
from erulab.stages.tracking import Tracker
from erulab.tokens.batch import Encoded
from erulab.tokens.chat import ChatFormat
from erulab.tokens.encoder import Encoder
from erulab.training.batches import Split
from erulab.training.encode_rows import content_hash
from erulab.training.stopping import StopRequest
from erulab.training.zero_config import loads_sharded


@dataclass(frozen=True)
class ModelRef:
    """A model on disk, and the key of the weights in it."""

    key: str
    path: str


@dataclass
class Reading:
    """What a model's tokenizer makes of the evaluated rows: each suite's role and content, and how many rows hold words
    that it does not know."""

    suites: dict[str, tuple[str, str]] = field(default_factory=dict)
    rows: int = 0
    unknown: int = 0


@dataclass
class Prepared:
    """A benchmark as the run's model reads it. `whole`: as it is in its files; `identity`: of its content."""

    whole: Benchmark
    benchmark: Benchmark
    identity: dict[str, Any]
    encoder: Encoder
    evaluation: EvaluationOptions

    @cached_property
    def measured(self) -> Benchmark:
        """The benchmark with the suites that `evaluation.suites` names, which may be none of them."""
        return dataclasses.replace(self.benchmark, suites=named(self.benchmark, self.evaluation.suites))

    @property
    def evaluated(self) -> dict[str, tuple[str, str]]:
        """Role and content of the rows of each suite that are evaluated, in full length.

        Raises:
            DataError: names a row that the model cannot read.
        """
        return self._own_reading.suites

    @property
    def unknown(self) -> tuple[int, int]:
        """How many of the evaluated rows hold words that the tokenizer does not know, and how many there are.

        Raises:
            DataError: as `evaluated`.
        """
        return self._own_reading.unknown, self._own_reading.rows

    @cached_property
    def _own_reading(self) -> Reading:
        return self.read_by(self.encoder.chat)

    def read_by(self, chat: ChatFormat) -> Reading:
        """The rows that are evaluated, as a model reads them.

        Raises:
            DataError: names a row that it cannot read.
        """
        reading = Reading()

        def encoded(suite: Suite) -> Iterator[Encoded]:
            for row in rows_of(suite, self.evaluation):
                one = chat.encode(row)
                reading.rows += 1
                reading.unknown += chat.unknown_id is not None and chat.unknown_id in one.ids
                yield one

        for suite in self.measured.suites:
            reading.suites[suite.name] = suite.role.value, content_hash(encoded(suite))
        return reading


@dataclass
class Context:
    """One rank's view of a run."""

    config: RunConfig
    data: Prepared  # what is unlearned
    beside: tuple[Prepared, ...]  # what is measured beside it
    source: ModelSource
    cache: Cache
    ledger: Ledger  # of all models that come from here
    ranks: Ranks
    device: torch.device
    tracker: Tracker
    stop: StopRequest

    @property
    def benchmark(self) -> Benchmark:
        return self.data.benchmark

    @property
    def data_identity(self) -> dict[str, Any]:
        return self.data.identity

    @property
    def encoder(self) -> Encoder:
        return self.data.encoder

    @property
    def chat(self) -> ChatFormat:
        return self.encoder.chat

    def chat_of(self, path: str) -> ChatFormat:
        """The chat format of a model on disk, by the run's own template and system turn where it has them."""
        return loading.chat_of(path, self.source.frame)

    def encoder_of(self, chat: ChatFormat) -> Encoder:
        """The run's own encoder, unless a given model speaks another chat format."""
        if chat.identity() == self.chat.identity():
            return self.encoder
        return Encoder(chat, self.benchmark.max_length, Path(self.config.cache))

    @property
    def base_identity(self) -> dict[str, Any]:
        return {"base": self.source.identity(self.data.whole), "chat": self.chat.identity()}

    def split(self, micro_batch: int | None) -> Split:
        """How a stage that trains cuts its global batches: by its own micro batch, or by the trainer's budget."""
        return Split(micro_batch, self.config.trainer.micro_tokens if micro_batch is None else None)

    def load(self, ref: ModelRef) -> LoadedModel:
        """The model of a reference, on this rank's device, in evaluation mode."""
        loaded = self._counted(loading.load_folder(ref.path, self.config.model.attention, self.source.frame))
        loaded.policy.to(self.device).eval()
        return loaded

    def load_to_train(self, ref: ModelRef) -> LoadedModel:
        """The model of a reference for an engine: under zero3 sharded, with nothing whole on any rank."""
        return self._sharded(ref.path) if loads_sharded(self.config.engine) else self.load(ref)

    def load_base(self, seed: int) -> LoadedModel:
        """The base model for an engine; what is read from a folder is sharded under zero3."""
        folder = self.source.folder
        if folder is not None and loads_sharded(self.config.engine):
            return self._sharded(folder)
        # A model that is made of the data's words speaks all of them, also those of prompts that were shortened.
        loaded = self._counted(self.source.load(self.data.whole, seed))
        loaded.policy.to(self.device)
        return loaded

    def forwards(self, loaded: LoadedModel) -> AbstractContextManager[None]:
        """Forwards of a model from `load_to_train` before its engine is built."""
        if not loads_sharded(self.config.engine):
            return nullcontext()
        from erulab.training.sharded import forwards

        return forwards(loaded.model, self.config.engine, self.device, self.config.trainer.precision)

    def frozen(self, ref: ModelRef, loaded: LoadedModel) -> Policy:
        """The model of a reference as it is before training; `loaded` is that model, not yet trained."""
        if not loads_sharded(self.config.engine):
            return loaded.copy().policy.requires_grad_(False)
        from erulab.training.sharded import ShardedPolicy

        model = self._sharded(ref.path).model.requires_grad_(False)
        return ShardedPolicy(model, self.config.engine, self.device, self.config.trainer.precision, self.ledger)

    def _sharded(self, source: str) -> LoadedModel:
        # DeepSpeed takes seconds to import, and only Linux has it.
        from erulab.training.sharded import load_sharded

        config = self.config
        return self._counted(
            load_sharded(
                source,
                config.model.attention,
                config.engine,
                self.device,
                config.trainer.precision,
                self.source.frame,
            )
        )

    def _counted(self, loaded: LoadedModel) -> LoadedModel:
        """The model, writing in this run's ledger; the look at its layout while it was loaded is left out."""
        return dataclasses.replace(loaded, ledger=self.ledger)

    def given(self, path: str) -> ModelRef:
        """A checkpoint that the user names in place of a stage's product.

        Raises:
            IntegrityFault: its tokenizer does not know the data set's words, so every figure would be of other texts.
            DataError: a row that the run's own model reads is too long for this one.
        """
        chat = self.chat_of(path)
        if chat.identity() != self.chat.identity():
            for prepared in (self.data, *self.beside):
                try:
                    prepared.read_by(chat)
                except DataError as error:
                    raise DataError(f"{path}: {error}") from error
        rows = self.encoder_of(chat).encode_unchecked(self.data.whole.forget)
        unknown = sum(chat.unknown_id is not None and chat.unknown_id in row.ids for row in rows)
        if unknown:
            raise IntegrityFault(
                f"{path} cannot read {unknown} of {len(rows)} forget rows (words unknown to its tokenizer); "
                "give a model that was trained on this data set"
            )
        return ModelRef(loading.folder_identity(path), path)
