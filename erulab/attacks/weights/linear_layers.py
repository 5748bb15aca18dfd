"""Changes the weights of a model's linear layers, in every layout in which they are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    import torch
    from torch import nn

    from erulab.models.loaded import LoadedModel
else:
    torch = lazy_loader.load("torch")


def output_first(layer: nn.Module) -> torch.Tensor | None:
    """Returns a view of a linear layer's weight as (out, in); None if the module is not a linear layer."""
    # Not at the top: this file is imported where torch must not be, and transformers cannot be loaded lazily.
    from transformers.pytorch_utils import Conv1D

    if isinstance(layer, torch.nn.Linear):
        return layer.weight.detach()
    # GPT-2's linear layer stores weights as (in, out).
    return layer.weight.detach().T if isinstance(layer, Conv1D) else None


def rewrite_weights(subject: LoadedModel, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replaces each linear layer's weight by `change(weight)`, both (out, in); embeddings and output head stay."""
    head = subject.model.get_output_embeddings()
    for module in subject.model.modules():
        weight = None if module is head else output_first(module)
        if weight is not None:
            weight.copy_(change(weight))
