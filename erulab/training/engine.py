"""What the loop asks of an engine, and the engine of one process: plain PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from erulab.models.policy import Policy
from erulab.options import EngineName, EngineOptions, Precision
from erulab.ranks import Ranks


class Engine(Protocol):
    """Owns the policy's training state. One optimizer step is n backwards and one step."""

    policy: Policy

    def __call__(self, *args: Any) -> Any:
        """The policy's forward, as training runs it (autocast, ZeRO's hooks)."""
        ...

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Adds the gradient of `loss`, this rank's share of the global loss; `last` in its optimizer step."""
        ...

    def step(self, lr: float) -> float:
        """Clips, updates, clears gradients; returns the gradient norm before clipping (over all ranks)."""
        ...

    def save(self, folder: Path) -> None:
        """Writes what `load` needs to continue bit for bit."""
        ...

    def load(self, folder: Path) -> None: ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Whole weights of the wrapped model on the CPU, on rank 0 (empty on others)."""
        ...


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only: biases and norms go without, as Hugging Face's Trainer does it."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]


class LocalEngine:
    """One process, one device."""

    def __init__(self, policy: Policy, *, weight_decay: float, clip: float, precision: Precision) -> None:
        self.policy = policy
        self._clip = clip
        groups = [group for group in parameter_groups(policy, weight_decay) if group["params"]]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
        self._autocast = bf16(precision, policy.device)

    def __call__(self, *args: Any) -> Any:
        with torch.autocast(self.policy.device.type, torch.bfloat16, enabled=self._autocast):
            return self.policy(*args)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        loss.backward()

    def step(self, lr: float) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self._clip or float("inf"))
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


def bf16(precision: Precision, device: torch.device) -> bool:
    """Whether forwards run in bfloat16: by default on GPUs that have it, never on CPUs (100 times slower there)."""
    if precision is Precision.auto:
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision is Precision.bf16


def build_engine(
    policy: Policy, options: EngineOptions, ranks: Ranks, *, weight_decay: float, clip: float, precision: Precision,
    micro_batch: int,
) -> Engine:  # fmt: skip
    """The engine `options.name` names, around a policy that is already on this rank's device."""
    if options.name in (EngineName.auto, EngineName.local):
        return LocalEngine(policy, weight_decay=weight_decay, clip=clip, precision=precision)
    # DeepSpeed takes seconds to import, and only Linux has it.
    from erulab.training.zero import ZeroEngine

    stage = int(options.name.value.removeprefix("zero"))
    return ZeroEngine(
        policy, ranks, stage=stage, offload=options.offload, weight_decay=weight_decay, clip=clip,
        precision=precision, micro_batch=micro_batch,
    )  # fmt: skip
