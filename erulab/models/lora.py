"""Low-rank adapters (LoRA, Hu et al. 2022): the weights stay, and few new ones are trained in their place."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from erulab import draws
from erulab.costs.shapes import NO_ADAPTERS, Adapters
from erulab.errors import ConfigError
from erulab.logprobs import Head
from erulab.models.forwards import Run
from erulab.models.loaded import LoadedModel
from erulab.models.policy import Policy
from erulab.rundir import give_usual_permissions
from erulab.tokens.batch import Batch

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def with_lora(
    subject: LoadedModel, *, rank: int, alpha: int, seed: int, targets: Sequence[str] | None = None
) -> LoadedModel:
    """Puts adapters on linear layers of a model, in place; only the adapters are trained.

    Args:
        alpha: adapters are scaled by alpha / rank.
        seed: of their initial values.
        targets: names of the linear layers in a block; None: all layers but the head, and in a mixture of experts
            those of attention, because an adapter on the experts' common parameter would copy it in every forward.
    Raises:
        ConfigError: the model has no linear layer of such a name.
    """
    # peft takes a second to import and only LoRA needs it.
    from peft import LoraConfig, get_peft_model

    found = [path for path, m in subject.policy.blocks.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    mixture = any(path.endswith(".experts") for path, _ in subject.policy.blocks.named_modules())
    if mixture:
        # peft takes an MLP's names for experts, and its "all-linear" for experts and routers too.
        found = [path for path in found if ".mlp." not in path]
    names = list(dict.fromkeys(path.rpartition(".")[2] for path in found))
    if targets is not None:
        check_targets(targets, names)
    every = names if mixture else "all-linear"
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=every if targets is None else list(targets),
        task_type="CAUSAL_LM",
    )
    # peft draws initial values from the global generator: seeded here, and restored afterwards.
    with torch.random.fork_rng():
        torch.manual_seed(draws.seed_of(seed, "lora"))
        # A PeftModel behaves as the model that it wraps.
        wrapped = cast("PreTrainedModel", get_peft_model(subject.model, config))
    return dataclasses.replace(subject, model=wrapped, adapters=Adapters(rank, tuple(targets or ())))


def check_targets(targets: Sequence[str], names: Sequence[str]) -> None:
    """Checks that `model.lora.targets` names linear layers of the model.

    Args:
        names: of the linear layers in a block.
    Raises:
        ConfigError: a target is none of them.
    """
    unknown = [target for target in targets if target not in names]
    if unknown:
        raise ConfigError(
            f"model.lora.targets: {', '.join(unknown)} is no linear layer of this model's blocks, which have "
            f"{', '.join(dict.fromkeys(names))}; try model.lora.targets=null for all of them"
        )


def no_trained_adapter(method: str) -> ConfigError:
    """Returns the error of a method that trains none of the weights that have adapters."""
    return ConfigError(
        f"method={method} trains none of the weights that have adapters; type model.lora.targets=null, or for a "
        "mixture, whose experts get no adapters, model.lora.rank=0"
    )


def merged(subject: LoadedModel) -> LoadedModel:
    """Adds the adapters to the weights; returns the model in its own layout, with all weights trainable."""
    model = cast("PeftModel", subject.model).merge_and_unload().requires_grad_(True)  # peft had frozen them
    return dataclasses.replace(subject, model=model, adapters=NO_ADAPTERS)


def save_adapter(subject: LoadedModel, folder: Path) -> None:
    """Writes the adapters alone, in peft's format (safetensors), to be put on the target."""
    cast("PeftModel", subject.model).save_pretrained(str(folder))
    for file in folder.iterdir():
        give_usual_permissions(file)


class WithoutAdapters:
    """The model before unlearning, if the policy trains adapters: the policy without them, and no copy."""

    def __init__(self, policy: Policy) -> None:
        # The same modules; their costs are counted without adapters.
        self._policy = Policy(policy.model, policy.ledger)

    @property
    def head(self) -> Head:
        return self._policy.head

    def run(self, batch: Batch, layers: Sequence[int] = (), last: int | None = None) -> Run:
        """Runs the batch as `Policy.run`."""
        trained = [(parameter, parameter.requires_grad) for parameter in self._policy.parameters()]
        try:
            with cast("PeftModel", self._policy.model).disable_adapter():
                return self._policy.run(batch, layers, last)
        finally:
            # peft lets every adapter require a gradient again, also those that the method does not train.
            for parameter, flag in trained:
                parameter.requires_grad_(flag)
