"""Directions in latent space: where they come from, how telling they are, and taking them out of states."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import lazy_loader

from erulab.adversaries.base import HookablePolicy
from erulab.adversaries.hooks import Edit, edited, site

if TYPE_CHECKING:
    import torch

    from erulab.tokens.batch import Batch
else:
    torch = lazy_loader.load("torch")


def wide(states: torch.Tensor) -> torch.Tensor:
    """In float32, or float64 where the states are: directions and norms lose too much in bfloat16."""
    return states if states.dtype == torch.float64 else states.float()


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Scaled to length 1 over the last axis; a zero vector stays zero."""
    tiny = torch.finfo(vectors.dtype).tiny
    # By the largest entry first: the squares of a well-learned answer's gradient underflow in float32.
    scaled = vectors / vectors.abs().amax(-1, keepdim=True).clamp(min=tiny)
    return scaled / scaled.norm(dim=-1, keepdim=True).clamp(min=tiny)


def difference_of_means(states: torch.Tensor, first: int) -> torch.Tensor:
    """Mean of the first `first` rows minus mean of the others: (rows, ...) -> (...).

    Source: difference-of-means directions, Arditi et al. 2024, arXiv:2406.11717.
    """
    return states[:first].mean(0) - states[first:].mean(0)


def direction_ratio(states: torch.Tensor, first: int, order: Sequence[int]) -> float:
    """Norm of the difference of means over that of the same rows with shuffled labels, averaged over sites.

    About 1: the two sides do not differ by more than their rows do, and the direction is noise.

    Args:
        states: (rows, sites, width), the first `first` of them on one side; order: a permutation of the rows.
    """
    shuffled = difference_of_means(states[list(order)], first).norm(dim=-1)
    ratio = difference_of_means(states, first).norm(dim=-1) / shuffled.clamp(min=torch.finfo(states.dtype).tiny)
    return float(ratio.mean())


def project_out(states: torch.Tensor, direction: torch.Tensor, fill: torch.Tensor | float = 0.0) -> torch.Tensor:
    """`h - r (r.h - fill)`: the states with coordinate `fill` along r.

    Args:
        states: (..., width); direction: (width,), of length 1, or zero for no change.
        fill: what stands along r afterwards, in the states' unit; 0 is refusal feature ablation.
    Source: METHODS.md section 6; ReFAT, Yu et al. 2024, arXiv:2409.20089.
    """
    # Not a matrix product: autocast would take that in bfloat16.
    along = (states * direction).sum(-1, keepdim=True)
    return states - (along - fill) * direction


def last_prompt_states(policy: HookablePolicy, batch: Batch, layers: Sequence[int]) -> torch.Tensor:
    """(rows, layers, width) h_l at the last prompt token, without gradient; responses are not run.

    A text without a prompt is read at its last token: there it has all been seen.
    """
    prompts = _prompts(batch)
    every = torch.arange(len(prompts.row_ids), device=prompts.input_ids.device)
    last = prompts.attention_mask.sum(1) - 1
    seen: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Edit:
        def edit(states: torch.Tensor) -> torch.Tensor:
            seen[layer] = wide(states[every, last])
            return states

        return edit

    with torch.no_grad(), edited(policy, [(site(policy, layer), keep(layer)) for layer in layers]):
        policy.hidden(prompts)
    return torch.stack([seen[layer] for layer in layers], 1)


def _prompts(batch: Batch) -> Batch:
    whole = batch.without_prompt & batch.attention_mask.bool()
    lengths = (batch.prompt_mask | whole).sum(1)
    ids = batch.input_ids[:, : int(lengths.max())]
    mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    nothing = torch.zeros_like(mask)
    return dataclasses.replace(batch, input_ids=ids, attention_mask=mask.long(), supervised=nothing, prompt_mask=mask)
