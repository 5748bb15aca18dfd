"""The engine of one process: plain PyTorch, no compiler needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from erulab.models.policy import Policy
from erulab.options import OptimizerName, Precision
from erulab.training.engine import runs_in_bf16, trained_parameters
from erulab.training.optimizers import build_optimizer
from erulab.training.training_state import StateReader, load_whole_states, whole_states, write_state


class LocalEngine:
    """One process, one device."""

    def __init__(
        self,
        policy: Policy,
        *,
        weight_decay: float,
        clip: float,
        precision: Precision,
        optimizer: OptimizerName = OptimizerName.adamw,
    ) -> None:
        self.policy = policy
        self._clip = clip
        self._kind = optimizer
        self._optimizer = build_optimizer(optimizer, policy, weight_decay)
        self._autocast = runs_in_bf16(precision, policy.device)

    def __call__(self, *args: Any) -> Any:
        with self.autocast():
            return self.policy(*args)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.policy.device.type, torch.bfloat16, enabled=self._autocast)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        loss.backward()

    def step(self, lr: float) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self._clip or float("inf"))
        if bool(norm.isfinite()):  # otherwise the loop stops, with the weights of the step before
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def save(self, folder: Path) -> None:
        write_state(whole_states(trained_parameters(self.policy), self._optimizer), folder)

    def load(self, folder: Path) -> None:
        with StateReader(folder) as reader:
            load_whole_states(trained_parameters(self.policy), self._optimizer, self._kind, reader)

    def weights(self, *, trained_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        model = self.policy.model
        named = model.named_parameters()
        yield from ((name, p.detach().cpu()) for name, p in named if p.requires_grad or not trained_only)
        if trained_only:
            return
        kept = model.state_dict().keys()
        yield from ((name, buffer.cpu()) for name, buffer in model.named_buffers() if name in kept)
