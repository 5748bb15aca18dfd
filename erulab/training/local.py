"""The engine of one process: plain PyTorch, no compiler needed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from erulab.models.policy import Policy
from erulab.options import Precision
from erulab.training.engine import bf16, parameter_groups


class LocalEngine:
    """One process, one device."""

    def __init__(self, policy: Policy, *, weight_decay: float, clip: float, precision: Precision) -> None:
        self.policy = policy
        self._clip = clip
        groups = [group for group in parameter_groups(policy, weight_decay) if group["params"]]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
        self._autocast = bf16(precision, policy.device)

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
        if bool(norm.isfinite()):  # else the loop stops, with the weights as they were
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        state = self._optimizer.state_dict()["state"]
        optimizer = {f"{i}.{name}": value for i, values in state.items() for name, value in values.items()}
        save_file({name: p.detach().contiguous() for name, p in self._trained()}, folder / "weights.safetensors")
        save_file(optimizer, folder / "optimizer.safetensors")

    def load(self, folder: Path) -> None:
        weights = load_file(folder / "weights.safetensors")
        with torch.no_grad():
            for name, parameter in self._trained():
                parameter.copy_(weights[name])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in load_file(folder / "optimizer.safetensors").items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": state})

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: value.cpu() for name, value in self.policy.model.state_dict().items()}

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        # named_parameters lists a tied weight once.
        return [(name, p) for name, p in self.policy.named_parameters() if p.requires_grad]
