"""Models that never lie whole on a process: read, and run without training, under ZeRO-3."""

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
from erulab.training.engine import bf16
from erulab.training.zero_config import zero_config


def load_sharded(
    source: str,
    attention: Attention,
    options: EngineOptions,
    device: torch.device,
    precision: Precision,
    frame: PromptOverrides = NO_OVERRIDES,
) -> LoadedModel:
    """As `loading.load_folder`, with every weight cut over the ranks as it is read; in the precision of training.

    transformers makes the modules under `deepspeed.zero.Init` and hands over one module's tensors after another: rank 0
    maps the files into memory and copies from there what is gathered just then, the others know only the shapes.
    """
    dtype = torch.bfloat16 if bf16(precision, device) else torch.float32
    # transformers looks for the settings through a weak reference to this object.
    settings = HfDeepSpeedConfig(zero_config(options, device, precision))
    try:
        loaded = read_folder(source, attention, frame, dtype)
    finally:
        unset_hf_deepspeed_config()
        del settings
    with forwards(loaded.model, options, device, precision):
        check_layout(loaded, source)
    return loaded


@contextmanager
def forwards(
    model: PreTrainedModel, options: EngineOptions, device: torch.device, precision: Precision
) -> Iterator[None]:
    """While it is open, forwards of a sharded model gather what they need; all ranks must run equally many."""
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
        # It lets go of its hooks when it is collected. A tuple, since it is no module of the model that it wraps.
        self._hooks = (engine,)
        head: Any = self.head
        # Called once a chunk of tokens, of which ranks have different numbers: gathered once, it stays (DeepSpeed
        # lets go of no weight that it takes to be used outside of its module).
        head.weight.is_external_param = True

    def release(self) -> None:
        """Cuts every weight over the ranks again and leaves the model to another engine."""
        (engine,) = self._hooks
        head: Any = self.head
        head.weight.is_external_param = False
        engine.empty_partition_cache()
        engine.destroy()
