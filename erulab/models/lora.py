"""Low-rank adapters: a model whose weights stay, and few new ones that are trained in their place (Hu et al. 2022)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from erulab import draws
from erulab.data.encoding import Batch
from erulab.logprobs import Head
from erulab.models.loaded import LoadedModel
from erulab.models.policy import Policy

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def with_lora(subject: LoadedModel, *, rank: int, alpha: int, seed: int) -> LoadedModel:
    """The model with adapters of `rank` on all linear layers but the head; only they are trained.

    Args:
        alpha: adapters are scaled by alpha / rank.
    """
    # peft takes a second to import and only LoRA needs it.
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    # peft draws its matrices from the global generator: fixed here, and restored afterwards.
    with torch.random.fork_rng():
        torch.manual_seed(draws.seed_of(seed, "lora"))
        # A PeftModel answers as the model it wraps.
        wrapped = cast("PreTrainedModel", get_peft_model(subject.model, config))
    return dataclasses.replace(subject, model=wrapped, lora_rank=rank)


def merged(subject: LoadedModel) -> LoadedModel:
    """The model with its adapters added to its weights, in its own layout again."""
    return dataclasses.replace(subject, model=cast("PeftModel", subject.model).merge_and_unload(), lora_rank=0)


def save_adapter(subject: LoadedModel, folder: Path) -> None:
    """Writes the adapters alone, in peft's format (safetensors), to be put on the target."""
    cast("PeftModel", subject.model).save_pretrained(str(folder))


class WithoutAdapters:
    """The model before unlearning, where the policy trains adapters on it: no copy is needed."""

    def __init__(self, policy: Policy) -> None:
        # The same modules; counted without what adapters cost.
        self._policy = Policy(policy.model, policy.ledger)

    @property
    def head(self) -> Head:
        return self._policy.head

    def hidden(self, batch: Batch) -> torch.Tensor:
        """(tokens, width) states of the supervised tokens."""
        with cast("PeftModel", self._policy.model).disable_adapter():
            return self._policy.hidden(batch)
