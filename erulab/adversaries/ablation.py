"""Directional ablation, shared by rfa and random_direction: removes one direction per site from hidden states.

    h <- h - r (r . h - c)     with the site's unit direction r and fill c (0 unless adversary.fill=retain_mean)

on all prompt and response tokens of the perturbed rows. Ablating the last position alone would leave the loss as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab.adversaries.base import HookablePolicy
from erulab.adversaries.directions import at_least_float32, project_out
from erulab.adversaries.hooks import Edit, edit_states, module_at_layer, residual_writers
from erulab.errors import ConfigError
from erulab.options import require, require_fraction, require_not_negative

if TYPE_CHECKING:
    import torch

    from erulab.tokens.batch import Batch
else:
    torch = lazy_loader.load("torch")


class Sites(Enum):
    """The sites at which a direction is removed."""

    block_inputs = "block_inputs"  # inputs of blocks and final norm, each with its own direction
    all_writes = "all_writes"  # every write to the residual stream, with one direction


@dataclass
class AblationOptions:
    """Options of rfa and random_direction."""

    p: float = 0.5  # share of forget rows that are perturbed
    warmup: float = 0.1  # share of the steps, from the first, without ablation
    sites: Sites = Sites.block_inputs  # where directions are removed
    layers_from: float = 0.25  # sites=block_inputs: from this share of the depth on
    layer: Optional[int] = None  # sites=all_writes: the block whose input gives the direction; null: the middle one

    def __post_init__(self) -> None:
        require_fraction("p", self.p)
        require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        require_fraction("layers_from", self.layers_from)
        require_not_negative("layer", self.layer)
        unused = self.layer is not None and self.sites is Sites.block_inputs
        require(not unused, "layer", "null with sites=block_inputs, which takes every layer's own", self.layer)


def ablated_layers(options: AblationOptions, blocks: int) -> list[int]:
    """Returns the layers l whose h_l gives a direction.

    Args:
        blocks: number of the model's blocks; as a layer, the input of the final norm.
    Raises:
        ConfigError: adversary.layer is not a layer of the model.
    """
    if options.sites is Sites.block_inputs:
        return list(range(math.ceil(options.layers_from * blocks), blocks + 1))
    layer = blocks // 2 if options.layer is None else options.layer
    if layer > blocks:
        raise ConfigError(f"adversary.layer must be between 0 and {blocks} for this model, got {layer}")
    return [layer]


class Ablation:
    """Base of adversaries that ablate directions; `prepare` of a subclass sets the directions."""

    perturbs_equal_openings_equally = True

    def __init__(self, options: AblationOptions) -> None:
        self.options = options
        self.p = options.p
        self.seed = 0
        self._active = False
        self._directions: torch.Tensor | None = None  # (sites, width), each of length 1, or 0 for no change
        self._fill: torch.Tensor | None = None  # (sites,) coordinate along each direction afterwards; None: 0

    @contextmanager
    def attach(
        self, policy: HookablePolicy, forget: Batch, perturbed_as_forget_row: torch.Tensor, step: int
    ) -> Iterator[None]:
        """Ablates prompt and response tokens of the perturbed rows; padding too, which no token attends to."""
        if not self._active or self._directions is None:
            yield
            return
        perturbed = (perturbed_as_forget_row >= 0)[:, None, None]
        if self.options.sites is Sites.all_writes:
            edit = self._ablation_edit(0, perturbed)
            outputs = [(module, edit) for module in residual_writers(policy)]
            with edit_states(policy, [(module_at_layer(policy, 0), edit)], outputs):
                yield
        else:
            layers = ablated_layers(self.options, len(policy.blocks))
            modules = [module_at_layer(policy, layer) for layer in layers]
            inputs = [(module, self._ablation_edit(i, perturbed)) for i, module in enumerate(modules)]
            with edit_states(policy, inputs):
                yield

    def _ablation_edit(self, index: int, perturbed: torch.Tensor) -> Edit:
        assert self._directions is not None
        direction, fill = self._directions[index], 0.0 if self._fill is None else self._fill[index]

        def edit(states: torch.Tensor) -> torch.Tensor:
            r = direction.to(states.device)
            c = fill.to(states.device) if isinstance(fill, torch.Tensor) else fill
            return torch.where(perturbed, project_out(at_least_float32(states), r, c).to(states.dtype), states)

        return edit
