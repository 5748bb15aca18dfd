"""Taking one direction a site out of the states of perturbed rows: what rfa and random_direction share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab.adversaries.base import HookablePolicy
from erulab.adversaries.directions import project_out, wide
from erulab.adversaries.hooks import Edit, edited, site, writers
from erulab.errors import ConfigError
from erulab.options import fraction, not_negative, require

if TYPE_CHECKING:
    import torch

    from erulab.tokens.batch import Batch
else:
    torch = lazy_loader.load("torch")


class Sites(Enum):
    """Where a direction is taken out."""

    block_inputs = "block_inputs"  # a direction of its own from the input of each block and of the final norm
    all_writes = "all_writes"  # one direction from every write to the residual stream, as abliteration does it


@dataclass
class AblationOptions:
    """`layer` is the block whose input gives all_writes its one direction; null: the middle one."""

    p: float = 0.5
    warmup: float = 0.1  # share of the steps, from the first, without ablation
    sites: Sites = Sites.block_inputs
    layers_from: float = 0.25  # block_inputs: from this share of the depth on
    layer: Optional[int] = None

    def __post_init__(self) -> None:
        fraction("p", self.p)
        require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        fraction("layers_from", self.layers_from)
        not_negative("layer", self.layer)
        unused = self.layer is not None and self.sites is Sites.block_inputs
        require(not unused, "layer", "null with sites=block_inputs, which takes every layer's own", self.layer)


def ablated_layers(options: AblationOptions, blocks: int) -> list[int]:
    """The layers l whose h_l gives a direction; `blocks` stands for the input of the final norm.

    Raises:
        ConfigError: adversary.layer is no layer of the model.
    """
    if options.sites is Sites.block_inputs:
        return list(range(math.ceil(options.layers_from * blocks), blocks + 1))
    layer = blocks // 2 if options.layer is None else options.layer
    if layer > blocks:
        raise ConfigError(f"adversary.layer must be between 0 and {blocks} for this model, got {layer}")
    return [layer]


class Ablation:
    """Holds the directions; `prepare` of the classes below sets them."""

    perturbs_equal_openings_equally = True

    def __init__(self, options: AblationOptions) -> None:
        self.options = options
        self.p = options.p
        self.seed = 0
        self._active = False
        self._directions: torch.Tensor | None = None  # (sites, width), each of length 1 or 0
        self._fill: torch.Tensor | None = None  # (sites,) what is left along them; None: nothing

    @contextmanager
    def attach(
        self, policy: HookablePolicy, forget: Batch, perturbed_as_forget_row: torch.Tensor, step: int
    ) -> Iterator[None]:
        """Ablates prompt and response tokens of the perturbed rows (padding too: no token ever sees it)."""
        if not self._active or self._directions is None:
            yield
            return
        hit = (perturbed_as_forget_row >= 0)[:, None, None]
        if self.options.sites is Sites.all_writes:
            edit = self._edit(0, hit)
            with edited(policy, [(site(policy, 0), edit)], [(module, edit) for module in writers(policy)]):
                yield
        else:
            layers = ablated_layers(self.options, len(policy.blocks))
            with edited(policy, [(site(policy, layer), self._edit(i, hit)) for i, layer in enumerate(layers)]):
                yield

    def _edit(self, index: int, hit: torch.Tensor) -> Edit:
        assert self._directions is not None
        direction, fill = self._directions[index], 0.0 if self._fill is None else self._fill[index]

        def edit(states: torch.Tensor) -> torch.Tensor:
            r = direction.to(states.device)
            c = fill.to(states.device) if isinstance(fill, torch.Tensor) else fill
            return torch.where(hit, project_out(wide(states), r, c).to(states.dtype), states)

        return edit
