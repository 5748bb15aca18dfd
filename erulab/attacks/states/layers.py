"""The layers that an attack reads, and the hidden states at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import lazy_loader

from erulab.adversaries.directions import last_prompt_states
from erulab.errors import ConfigError
from erulab.options import require
from erulab.tokens.batch import Encoded, collate

if TYPE_CHECKING:
    import torch

    from erulab.models.loaded import LoadedModel
else:
    torch = lazy_loader.load("torch")

ROWS = 32  # rows per forward


def check_layers(layers: Sequence[int] | None) -> None:
    """Checks the option `layers`.

    Raises:
        ValueError: it is an empty list, or has a layer below 1.
    """
    require(layers is None or (bool(layers) and min(layers) >= 1), "layers", "null or a list such as [1,2]", layers)


def layers_of(subject: LoadedModel, layers: Sequence[int] | None, attack: str) -> list[int]:
    """Returns the layers l, 1 to L, whose h_l is read: those of the option `layers`, or all.

    Raises:
        ConfigError: the model has no such layer.
    """
    last = len(subject.policy.blocks)
    if layers is not None and max(layers) > last:
        raise ConfigError(f"attack.{attack}.layers must be between 1 and {last} for this model, got {max(layers)}")
    return list(range(1, last + 1)) if layers is None else list(layers)


def last_states(subject: LoadedModel, rows: Sequence[Encoded], layers: Sequence[int]) -> torch.Tensor:
    """Returns h_l at the last token before each row's supervised tokens, (rows, layers, width), on the CPU.

    A text without a prompt is read at its last token.
    """
    policy = subject.policy
    order = sorted(range(len(rows)), key=lambda i: (rows[i].start or len(rows[i].ids), i))
    found = []
    for first in range(0, len(order), ROWS):
        batch = collate([rows[i] for i in order[first : first + ROWS]], subject.pad_id)
        found.append(last_prompt_states(policy, batch.to(policy.device), layers).cpu())
    states = torch.cat(found)
    return torch.empty_like(states).index_copy_(0, torch.tensor(order), states)
