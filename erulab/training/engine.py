"""What the training loop asks of an engine."""

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
    """Owns the policy's training state. One optimizer step is n backwards and one step."""

    policy: Policy

    def __call__(self, *args: Any) -> Any:
        """The policy's forward, as training runs it (autocast, ZeRO's hooks)."""
        ...

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of forwards that run around this engine: an adversary's own."""
        ...

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Adds the gradient of `loss`, this rank's share of the global loss; `last` in its optimizer step."""
        ...

    def step(self, lr: float) -> float:
        """Clips, updates, clears gradients; returns the gradient norm before clipping (over all ranks)."""
        ...

    def save(self, folder: Path) -> None:
        """Writes what any engine, on any number of processes, needs to continue (`training_state`); on all ranks."""
        ...

    def load(self, folder: Path) -> None:
        """Takes what an engine has written: bit for bit what it was, if it was this engine on as many processes."""
        ...

    def weights(self, *, trained_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and whole weights of the wrapped model on the CPU, one at a time; a tied weight once.

        With `trained_only` those alone that an optimizer changes: the adapters of a model that carries some.

        All ranks must go through all of it; only rank 0 is given any.
        """
        ...


def trained(policy: Policy) -> list[tuple[str, nn.Parameter]]:
    """The parameters that an optimizer changes, by name; a tied weight once."""
    return [(name, p) for name, p in policy.named_parameters() if p.requires_grad]


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only: biases and norms go without, as Hugging Face's Trainer does it."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def bf16(precision: Precision, device: torch.device) -> bool:
    """Whether forwards run in bfloat16: by default on GPUs that have it, never on CPUs (100 times slower there)."""
    if precision is Precision.auto:
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision is Precision.bf16
