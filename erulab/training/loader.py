"""Models from disk onto this rank's device: whole, or sharded over the ranks under engine=zero3."""

from __future__ import annotations

import dataclasses
import functools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from erulab.checksums import check_model, checked_meanwhile
from erulab.costs.ledger import Ledger
from erulab.data.rows import Benchmark
from erulab.models import loading
from erulab.models.base import ModelSource
from erulab.models.loaded import LoadedModel
from erulab.models.options import Quantization
from erulab.models.policy import Policy
from erulab.options import RunConfig
from erulab.tokens.chat import ChatFormat
from erulab.training.engine import runs_in_bf16
from erulab.training.zero_config import loads_sharded


@dataclass(frozen=True)
class ModelRef:
    """A model on disk, and the key of its weights."""

    key: str
    path: str


class ModelLoader:
    """Loads the models of one run. All forwards and backwards of the loaded models are added up in one ledger.

    While a model that erulab made is loaded, its files are compared with their checksums, once per process.

    Raises:
        Damaged: by every method that loads a model; the product of the cache was changed since it was written.
    """

    def __init__(self, config: RunConfig, source: ModelSource, ledger: Ledger, device: torch.device) -> None:
        """
        Args:
            source: of the base weights; its chat template and system turn are put around the prompts of every model.
            device: this rank's.
        """
        self._config, self._source, self._ledger, self._device = config, source, ledger, device
        self._sharded = loads_sharded(config.engine)

    def given(self, path: str) -> ModelRef:
        """Refers to a checkpoint that the user names in place of a stage's product."""
        return ModelRef(loading.folder_identity(path), path)

    def chat_of(self, path: str) -> ChatFormat:
        """Returns the chat format of a model on disk, without loading its weights."""
        return loading.chat_of(path, self._source.overrides)

    def load_on_cpu(self, ref: ModelRef) -> LoadedModel:
        """Loads a model in float32 on the CPU, in evaluation mode; it writes in no run's ledger."""
        with _checked(ref):
            return loading.load_folder(ref.path, self._config.model.attention, self._source.overrides)

    def load(self, ref: ModelRef) -> LoadedModel:
        """Loads a model onto this rank's device, whole and in evaluation mode."""
        loaded = self._counted(self.load_on_cpu(ref))
        loaded.policy.to(self._device).eval()
        return loaded

    def load_to_train(self, ref: ModelRef) -> LoadedModel:
        """Loads a model for unlearning: in 4 bits where adapters are trained on such weights, sharded under zero3."""
        if self._config.model.lora.quantize is not Quantization.none:
            with _checked(ref):
                return self._load_quantized(ref.path)
        return self._load_sharded(ref) if self._sharded else self.load(ref)

    def load_base(self, benchmark: Benchmark, seed: int) -> LoadedModel:
        """Loads or makes the base model for an engine; weights that lie in a folder are sharded under zero3.

        Args:
            benchmark: the data set as its files have it: an embedded model's vocabulary is made of its words, also
                of those in prompts that are truncated later.
            seed: of weights that are drawn at random.
        """
        if self._source.folder is not None and self._sharded:
            return self._load_sharded(ModelRef("", self._source.folder))
        loaded = self._counted(self._source.load(benchmark, seed))
        loaded.policy.to(self._device)
        return loaded

    def forwards_before_engine(self, loaded: LoadedModel) -> AbstractContextManager[None]:
        """Opens a context in which a model from `load_to_train` can run before its engine is built."""
        if not self._sharded:
            return nullcontext()
        from erulab.training.sharded import sharded_forwards

        return sharded_forwards(loaded.model, self._config.engine, self._device, self._config.trainer.precision)

    def frozen_copy(self, ref: ModelRef, loaded: LoadedModel) -> Policy:
        """Returns the frozen model that unlearning starts from, beside the one that is trained.

        Args:
            loaded: the model of `ref`, not yet trained: copied, or read once more under zero3.
        """
        if not self._sharded:
            return loaded.copy().policy.requires_grad_(False)
        return self._frozen_shards(ref)

    def load_frozen(self, ref: ModelRef) -> Policy:
        """Loads a model that is only compared with."""
        return self._frozen_shards(ref) if self._sharded else self.load(ref).policy.requires_grad_(False)

    def _frozen_shards(self, ref: ModelRef) -> Policy:
        from erulab.training.sharded import ShardedPolicy

        model = self._load_sharded(ref).model.requires_grad_(False)
        return ShardedPolicy(model, self._config.engine, self._device, self._config.trainer.precision, self._ledger)

    def _load_quantized(self, source: str) -> LoadedModel:
        # bitsandbytes is optional.
        from erulab.models.quantized import load_quantized

        config = self._config
        computes_in = torch.bfloat16 if runs_in_bf16(config.trainer.precision, self._device) else torch.float32
        return self._counted(
            load_quantized(source, config.model.attention, self._device, computes_in, self._source.overrides)
        )

    def _load_sharded(self, ref: ModelRef) -> LoadedModel:
        # DeepSpeed takes seconds to import, and only Linux has it.
        from erulab.training.sharded import load_sharded

        config = self._config
        with _checked(ref):
            loaded = load_sharded(
                ref.path,
                config.model.attention,
                config.engine,
                self._device,
                config.trainer.precision,
                self._source.overrides,
            )
        return self._counted(loaded)

    def _counted(self, loaded: LoadedModel) -> LoadedModel:
        """Returns the model with this run's ledger, in which the forward that checked its layout is not counted."""
        return dataclasses.replace(loaded, ledger=self._ledger)


def _checked(ref: ModelRef) -> AbstractContextManager[None]:
    return checked_meanwhile(functools.partial(check_model, Path(ref.path), ref.key))
