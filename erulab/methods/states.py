"""Pure functions of hidden states that several methods share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import lazy_loader

from erulab.options import require

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


def at_least_float32(states: torch.Tensor) -> torch.Tensor:
    """Returns states in float32, or as they are in float64: bfloat16 is too coarse for squares and norms."""
    return states if states.dtype == torch.float64 else states.float()


def squared_distance(states: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Returns the (tokens,) mean over the width of (states - other)^2.

    Args:
        states: (tokens, width).
        other: (tokens, width), or (width,) for all tokens.
    """
    return (at_least_float32(states) - at_least_float32(other)).square().mean(-1)


def checked_layers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Returns layers l of states h_l in order, each once.

    Args:
        layers: as an option `layers` names them, counted as `output_hidden_states` of transformers counts.
        depth: blocks of the model.
    Raises:
        ValueError: one is not in 1..depth, or there are none.
    """
    known = bool(layers) and all(1 <= layer <= depth for layer in layers)
    require(known, "layers", f"a list of 1 to {depth} for a model of {depth} blocks", list(layers))
    return tuple(sorted(set(layers)))
