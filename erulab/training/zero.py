"""The DeepSpeed engine: ZeRO 0-3 over GPUs (nccl) or CPU processes (gloo)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import deepspeed
import torch

from erulab.models.policy import Policy
from erulab.options import Precision
from erulab.ranks import Ranks
from erulab.training.engine import bf16, parameter_groups


class ZeroEngine:
    """A policy sharded by DeepSpeed.

    Losses arrive normalised over the global batch, and the loop sets accumulation boundaries by hand, so DeepSpeed is
    told of no accumulation; its mean over ranks is undone by the factor `world`.
    """

    def __init__(
        self, policy: Policy, ranks: Ranks, *, stage: int, offload: bool, weight_decay: float, clip: float,
        precision: Precision,
    ) -> None:  # fmt: skip
        self.policy = policy
        self._ranks = ranks
        self._stage = stage
        zero: dict[str, Any] = {"stage": stage}
        if offload:
            zero["offload_optimizer"] = {"device": "cpu"}
        if stage == 3:
            # Small tensors stay whole: sharding a norm's weights costs more than it saves.
            zero["stage3_param_persistence_threshold"] = 10_000
        config = {
            "train_micro_batch_size_per_gpu": 1,  # losses arrive normalised: DeepSpeed need not know
            "gradient_accumulation_steps": 1,
            "gradient_clipping": clip,
            "zero_optimization": zero,
            "zero_force_ds_cpu_optimizer": False,
            "zero_allow_untested_optimizer": True,
            "bf16": {"enabled": bf16(precision, policy.device)},
            "optimizer": {"type": "AdamW", "params": {"lr": 0.0, "torch_adam": True}},
        }
        groups = [group for group in parameter_groups(policy, weight_decay) if group["params"]]
        self._engine, *_ = deepspeed.initialize(model=policy, model_parameters=groups, config=config)

    def __call__(self, *args: Any) -> Any:
        return self._engine(*args)

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()  # DeepSpeed keeps the weights themselves in bfloat16

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self._ranks.world)

    def step(self, lr: float) -> float:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        # Stage 0 keeps no norm; its gradients are whole on every rank by now.
        norm = self._whole_norm() if self._stage == 0 else None
        self._engine.step()
        return float(self._engine.get_global_grad_norm() if norm is None else norm)

    def _whole_norm(self) -> torch.Tensor:
        return torch.nn.utils.get_total_norm(p.grad for p in self.policy.parameters() if p.grad is not None)

    def save(self, folder: Path) -> None:
        self._engine.save_checkpoint(str(folder), tag="zero")
        self._ranks.barrier()

    def load(self, folder: Path) -> None:
        # The caller has checked the folder's manifest: DeepSpeed's files are pickles.
        self._engine.load_checkpoint(str(folder), tag="zero")

    def state_dict(self) -> dict[str, torch.Tensor]:
        whole: dict[str, torch.Tensor] = {}
        # One parameter at a time: gathering all at once would hold a full copy on every rank.
        for name, parameter in self.policy.model.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self._stage == 3):
                if self._ranks.first:
                    whole[name] = parameter.detach().cpu().clone()
        if self._ranks.first:
            whole.update({name: buffer.cpu() for name, buffer in self.policy.model.named_buffers()})
        return whole
