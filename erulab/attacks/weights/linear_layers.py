"""Changes the weights of a model's linear layers, in every layout in which they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    import torch
    from torch import nn

    from erulab.models.loaded import LoadedModel
else:
    torch = lazy_loader.load("torch")

EXPERT_NAMES = ("gate_up_proj", "down_proj")  # of the parameters that hold a layer's experts


def output_first(layer: nn.Module) -> torch.Tensor | None:
    """Returns a view of a linear layer's weight as (out, in); None if the module is not a linear layer."""
    # Not at the top: this file is imported where torch must not be, and transformers cannot be loaded lazily.
    from transformers.pytorch_utils import Conv1D

    if isinstance(layer, torch.nn.Linear):
        return layer.weight.detach()
    # GPT-2's linear layer stores weights as (in, out).
    return layer.weight.detach().T if isinstance(layer, Conv1D) else None


def expert_weights(module: nn.Module, name: str) -> list[torch.Tensor]:
    """Returns a view of each expert's matrix `name` as (out, in); none if the module is not a mixture's experts.

    transformers keeps the experts of a layer in one parameter, (experts, out, in) or (experts, in, out).
    """
    fused = dict(module.named_parameters(recurse=False)).get(name)
    if fused is None or fused.dim() != 3:
        return []
    weights = fused.detach()
    return list(weights.transpose(1, 2) if module.is_transposed else weights)


def linear_weights(subject: LoadedModel) -> Iterator[torch.Tensor]:
    """Yields a view of the weight of each linear layer and each expert as (out, in).

    Embeddings, the output head and the router of a mixture are left out.
    """
    head = subject.model.get_output_embeddings()
    for module in subject.model.modules():
        weight = None if module is head else output_first(module)
        experts = [one for name in EXPERT_NAMES for one in expert_weights(module, name)]
        yield from experts if weight is None else [weight]


def rewrite_weights(subject: LoadedModel, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replaces each weight of `linear_weights` by `change(weight)`, both (out, in)."""
    for found in linear_weights(subject):
        found.copy_(change(found))
