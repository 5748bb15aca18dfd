"""Directions in hidden states: difference of means, a measure against chance, and projection. Pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import lazy_loader

from erulab.adversaries.base import HookablePolicy
from erulab.adversaries.hooks import Edit, edit_states, module_at_layer

if TYPE_CHECKING:
    import torch

    from erulab.tokens.batch import Batch
else:
    torch = lazy_loader.load("torch")


def at_least_float32(states: torch.Tensor) -> torch.Tensor:
    """Returns the states in float32, or as they are in float64: bfloat16 is too coarse for directions and norms."""
    return states if states.dtype == torch.float64 else states.float()


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Scales vectors to length 1 over the last axis; a zero vector stays zero."""
    tiny = torch.finfo(vectors.dtype).tiny
    # First by the largest entry: the gradient of a well-learned answer is so small that its squares underflow.
    scaled = vectors / vectors.abs().amax(-1, keepdim=True).clamp(min=tiny)
    return scaled / scaled.norm(dim=-1, keepdim=True).clamp(min=tiny)


def difference_of_means(states: torch.Tensor, first: int) -> torch.Tensor:
    """Returns the mean of the first `first` rows minus the mean of the others: (rows, ...) -> (...).

    Source: difference-of-means directions, Arditi et al. 2024, arXiv:2406.11717.
    """
    return states[:first].mean(0) - states[first:].mean(0)


def direction_ratio(states: torch.Tensor, first: int, order: Sequence[int]) -> float:
    """Compares the difference of means with that of shuffled labels: the ratio of their norms, averaged over sites.

    About 1 means that the two sides differ no more than two random halves of their rows, so the direction is noise.

    Args:
        states: (rows, sites, width) hidden states; rows 0..first-1 are one side, the others the other side.
        first: rows of the first side.
        order: permutation of the rows that shuffles the labels.
    """
    shuffled = difference_of_means(states[list(order)], first).norm(dim=-1)
    ratio = difference_of_means(states, first).norm(dim=-1) / shuffled.clamp(min=torch.finfo(states.dtype).tiny)
    return float(ratio.mean())


def project_out(states: torch.Tensor, direction: torch.Tensor, fill: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Returns `h - r (r.h - fill)`: the states with coordinate `fill` along the direction r.

    Args:
        states: (..., width) hidden states h.
        direction: (width,) r, of length 1; or zeros, which change nothing.
        fill: coordinate along r afterwards, in the unit of the states; 0 is refusal feature ablation.
    Returns:
        (..., width).
    Source: ReFAT, Yu et al. 2024, arXiv:2409.20089.
    """
    # A sum of products, not a matrix product: autocast would compute that in bfloat16.
    along = (states * direction).sum(-1, keepdim=True)
    return states - (along - fill) * direction


def last_prompt_states(policy: HookablePolicy, batch: Batch, layers: Sequence[int]) -> torch.Tensor:
    """Runs the prompts of a batch, without their responses, and reads h_l at the last prompt token.

    A text without a prompt is run whole and read at its last token.

    Args:
        layers: the layers l to read.
    Returns:
        (rows, layers, width), at least float32, without gradient.
    """
    prompts = _without_responses(batch)
    every = torch.arange(len(prompts.row_ids), device=prompts.input_ids.device)
    last = prompts.attention_mask.sum(1) - 1
    seen: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Edit:
        def edit(states: torch.Tensor) -> torch.Tensor:
            seen[layer] = at_least_float32(states[every, last])
            return states

        return edit

    with torch.no_grad(), edit_states(policy, [(module_at_layer(policy, layer), keep(layer)) for layer in layers]):
        policy.hidden(prompts)
    return torch.stack([seen[layer] for layer in layers], 1)


def _without_responses(batch: Batch) -> Batch:
    whole = batch.without_prompt & batch.attention_mask.bool()
    lengths = (batch.prompt_mask | whole).sum(1)
    ids = batch.input_ids[:, : int(lengths.max())]
    mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    nothing = torch.zeros_like(mask)
    return dataclasses.replace(batch, input_ids=ids, attention_mask=mask.long(), supervised=nothing, prompt_mask=mask)
