"""Changes the weights of a model's linear layers and experts, in every layout in which they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import lazy_loader

from erulab.attacks.weights.left_alone import BlockMatrix, check_known, shares

if TYPE_CHECKING:
    import torch
    from torch import nn

    from erulab.models.loaded import LoadedModel
else:
    torch = lazy_loader.load("torch")

# Experts that do not say how they are stored: class -> whether a matrix is (in, out). All others have `is_transposed`.
SILENT_EXPERTS = {"JetMoeParallelExperts": False, "Llama4TextExperts": True, "LongcatFlashExperts": False}
# Part of a mixture that sends tokens to experts. Some families make it of an ordinary linear layer.
ROUTERS = {"gate", "router"}


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

    transformers keeps the experts of a layer in one parameter, (experts, out, in) or (experts, in, out). Two matrices
    that it stacks, such as `gate_up_proj`, are one matrix here, as they are in dense models that stack them.
    """
    transposed = _stores_input_first(module)
    fused = dict(module.named_parameters(recurse=False)).get(name)
    # Biases of experts are (experts, out).
    if transposed is None or fused is None or fused.dim() != 3:
        return []
    weights = fused.detach()
    return list(weights.transpose(1, 2) if transposed else weights)


def linear_weights(subject: LoadedModel) -> Iterator[torch.Tensor]:
    """Yields a view of the weight of each linear layer and each expert as (out, in).

    Embeddings, the output head and the router of a mixture are left out: libraries that quantise or prune keep routers.
    """
    head = subject.model.get_output_embeddings()
    mixture = _is_mixture(subject.model)
    for path, module in subject.model.named_modules():
        if module is not head and not (mixture and _in_router(path)):
            yield from _weights_of(module).values()


def rewrite_weights(subject: LoadedModel, change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
    """Replaces each weight of `linear_weights` by `change(weight)`, both (out, in).

    Returns:
        Matrix of a block that was left as it is -> its share of the weights of all matrices of the blocks.
    Raises:
        Inapplicable: the blocks hold matrices that are neither linear layers nor known experts.
    """
    found = list(_block_matrices(subject))
    check_known(found)
    for weight in linear_weights(subject):
        weight.copy_(change(weight))
    return shares(found)


def _weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Returns parameter, or parameter and number of the expert -> view as (out, in), of what a module holds itself."""
    weight = output_first(module)
    if weight is not None:
        return {"weight": weight}
    names = [name for name, _ in module.named_parameters(recurse=False)]
    return {f"{name}.{i}": one for name in names for i, one in enumerate(expert_weights(module, name))}


def _block_matrices(subject: LoadedModel) -> Iterator[BlockMatrix]:
    """Yields the matrices of all blocks: parameters with two dimensions that are longer than 1."""
    mixture = _is_mixture(subject.model)
    for path, module in subject.policy.blocks.named_modules():
        # Biases of experts are vectors, stacked.
        least = 2 if _stores_input_first(module) is None else 3
        read = {name.partition(".")[0] for name in _weights_of(module)}
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() >= least and parameter.squeeze().dim() >= 2:
                place = ".".join([*path.split(".")[1:], name])
                router = mixture and _in_router(path)
                yield BlockMatrix(place, parameter.numel(), reached=name in read and not router, router=router)


def _stores_input_first(module: nn.Module) -> bool | None:
    """Returns whether a module's experts are stored as (experts, in, out); None if it is not a mixture's experts."""
    stored: bool | None = vars(module).get("is_transposed", SILENT_EXPERTS.get(type(module).__name__))
    return stored


def _is_mixture(model: nn.Module) -> bool:
    return any(_stores_input_first(module) is not None for module in model.modules())


def _in_router(path: str) -> bool:
    return not ROUTERS.isdisjoint(path.split("."))
