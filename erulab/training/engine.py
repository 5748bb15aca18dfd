"""The protocol of an engine, and what all engines share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from erulab.models.policy import Policy
from erulab.options import Precision


class Engine(Protocol):
    """Runs and updates a policy, and owns its optimizer. An optimizer step is one or more backwards and one `step`."""

    policy: Policy

    def __call__(self, *args: Any) -> Any:
        """Runs the policy's forward as in training (autocast, ZeRO's hooks)."""
        ...

    def autocast(self) -> AbstractContextManager[Any]:
        """Opens a context with this engine's precision, for forwards of the policy outside `__call__`."""
        ...

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Adds the gradient of a loss.

        Args:
            loss: this rank's share of the global loss.
            last: whether it is the last backward before `step`.
        """
        ...

    def step(self, lr: float) -> float:
        """Clips, updates and clears the gradients; returns their norm before clipping, over all ranks."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the state from which any engine on any number of processes continues; all ranks must call it."""
        ...

    def load(self, folder: Path) -> None:
        """Restores a saved state: bit for bit, if the same engine on as many processes saved it."""
        ...

    def weights(self, *, trained_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields names and whole weights of the model on the CPU, one at a time, a tied weight once.

        All ranks must iterate to the end; only rank 0 gets any.

        Args:
            trained_only: only the weights that the optimizer changes, such as adapters.
        """
        ...


def trained_parameters(policy: Policy) -> list[tuple[str, nn.Parameter]]:
    """Lists the parameters that an optimizer changes, with their names; a tied weight once."""
    return [(name, p) for name, p in policy.named_parameters() if p.requires_grad]


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups the trained parameters: matrices get weight decay, biases and norms do not (as Hugging Face's Trainer)."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def runs_in_bf16(precision: Precision, device: torch.device) -> bool:
    """Tells whether forwards run in bfloat16. `auto`: on GPUs that have it, never on CPUs (100 times slower there)."""
    if precision is Precision.auto:
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision is Precision.bf16
