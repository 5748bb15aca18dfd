"""Models that no process ever holds whole: read and run, without training, under ZeRO-3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

from erulab.costs.ledger import Ledger
from erulab.models.loaded import LoadedModel
from erulab.models.loading import check_layout, read_folder
from erulab.models.options import Attention
from erulab.models.policy import Policy
from erulab.options import EngineOptions, Offload, Precision
from erulab.tokens.templates import NO_OVERRIDES, PromptOverrides
from erulab.training.engine import runs_in_bf16
from erulab.training.zero_config import zero_config


def load_sharded(
    source: str,
    attention: Attention,
    options: EngineOptions,
    device: torch.device,
    precision: Precision,
    overrides: PromptOverrides = NO_OVERRIDES,
) -> LoadedModel:
    """Loads a folder as `loading.load_folder`, in the precision of training, and shards each weight as it is read.

    transformers makes the modules under `deepspeed.zero.Init` and hands over the tensors of one module after another.
    Rank 0 maps the files into memory and copies the tensors that are gathered at the moment; the other ranks know only
    the shapes.

    Args:
        source: a folder or hub id.
        overrides: chat template and system turn, in place of the tokenizer's own.
    """
    dtype = torch.bfloat16 if runs_in_bf16(precision, device) else torch.float32
    # transformers looks for the settings through a weak reference to this object.
    settings = HfDeepSpeedConfig(zero_config(options, device, precision))
    try:
        loaded = read_folder(source, attention, overrides, dtype)
    finally:
        unset_hf_deepspeed_config()
        del settings
    with sharded_forwards(loaded.model, options, device, precision):
        check_layout(loaded, source)
    return loaded


@contextmanager
def sharded_forwards(
    model: PreTrainedModel, options: EngineOptions, device: torch.device, precision: Precision
) -> Iterator[None]:
    """Opens a context in which forwards of a sharded model gather its weights; all ranks must run equally many.

    Args:
        model: sharded, as `load_sharded` gives it.
        options: of engine=zero3.
        device: of this rank.
        precision: of training.
    """
    policy = ShardedPolicy(model, options, device, precision)
    try:
        yield
    finally:
        policy.release()


class ShardedPolicy(Policy):
    """A sharded model whose forwards gather weights, without an optimizer: a frozen reference."""

    def __init__(
        self,
        model: PreTrainedModel,
        options: EngineOptions,
        device: torch.device,
        precision: Precision,
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__(model, ledger)
        config = zero_config(options, device, precision)
        if options.offload is not Offload.none:
            del config["zero_optimization"]["offload_optimizer"]
        engine, *_ = deepspeed.initialize(model=model, config=config)
        # Its hooks go when it is collected. Kept in a tuple, because it is not a submodule of the model that it wraps.
        self._hooks = (engine,)
        head: Any = self.output_matrix
        # Ranks call the head different numbers of times, once per chunk of tokens: once gathered, it must
        # stay. DeepSpeed never releases a weight that it believes to be used outside of its module.
        head.weight.is_external_param = True

    def release(self) -> None:
        """Shards every weight again and leaves the model to another engine."""
        (engine,) = self._hooks
        head: Any = self.output_matrix
        head.weight.is_external_param = False
        engine.empty_partition_cache()
        engine.destroy()
