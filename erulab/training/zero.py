"""The DeepSpeed engine: ZeRO 0-3 over GPUs (nccl) or CPU processes (gloo)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import deepspeed
import torch

from erulab.errors import EnvironmentFault
from erulab.models.policy import Policy
from erulab.options import EngineOptions, Offload, OptimizerName, Precision
from erulab.ranks import Ranks
from erulab.training.engine import runs_in_bf16, trained_parameters
from erulab.training.optimizers import MOMENTS, build_optimizer
from erulab.training.training_state import StateReader, load_whole_states, whole_states, write_state
from erulab.training.zero_config import stage_of, zero_config
from erulab.training.zero_state import gather_states, load_partitioned_states


class ZeroEngine:
    """A policy under DeepSpeed.

    Losses are normalised over the global batch before they come here, and `backward` marks the end of accumulation, so
    DeepSpeed's own setting for accumulation is 1. The factor `world` undoes its mean over ranks.
    """

    def __init__(
        self,
        policy: Policy,
        ranks: Ranks,
        options: EngineOptions,
        *,
        weight_decay: float,
        clip: float,
        precision: Precision,
        optimizer: OptimizerName = OptimizerName.adamw,
    ) -> None:
        """`policy`: whole on this rank's device, or sharded already (`load_sharded`)."""
        self.policy = policy
        self._ranks = ranks
        self._stage, self._offload = stage_of(options), options.offload
        self._kind = optimizer
        self._autocast = runs_in_bf16(precision, policy.device) and self._stage == 0
        config = {
            **zero_config(options, policy.device, precision),
            "gradient_accumulation_steps": 1,
            "gradient_clipping": clip,
            # The optimizer is that of the local engine, also for offloaded states.
            "zero_force_ds_cpu_optimizer": False,
            "zero_allow_untested_optimizer": True,
        }
        built = build_optimizer(optimizer, policy, weight_decay)
        self._engine, *_ = deepspeed.initialize(model=policy, optimizer=built, config=config)
        if self._stage == 3:
            # A forward calls the head once per chunk of tokens, and processes have different numbers of chunks.
            # Registered with the policy, the head is gathered together with it and needs no collective of its own.
            head: Any = policy.output_matrix
            deepspeed.zero.register_external_parameter(policy, head.weight)

    def __call__(self, *args: Any) -> Any:
        return self._engine(*args)

    def autocast(self) -> AbstractContextManager[Any]:
        if self._autocast:
            return torch.autocast(self.policy.device.type, torch.bfloat16)
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
        named, optimizer = trained_parameters(self.policy), self._engine.optimizer
        moments = MOMENTS[self._kind]
        found = gather_states(named, optimizer, self._stage, moments) if self._stage else whole_states(named, optimizer)
        if self._ranks.first:
            write_state(found, folder)
        else:
            for _ in found:  # gathering a parameter is a collective
                pass
        self._ranks.barrier()

    def load(self, folder: Path) -> None:
        if self._offload is Offload.nvme:
            raise EnvironmentFault(
                "a checkpoint cannot be read into an optimizer on a disk (engine.offload=nvme); type engine.offload=cpu"
            )
        named, optimizer = trained_parameters(self.policy), self._engine.optimizer
        with StateReader(folder) as reader:
            if self._stage:
                load_partitioned_states(named, optimizer, self._stage, MOMENTS[self._kind], reader, self._ranks.rank)
            else:
                load_whole_states(named, optimizer, self._kind, reader)

    def weights(self, *, trained_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        model = self.policy.model
        # One parameter at a time: gathering all at once would put a full copy on every rank.
        for name, parameter in model.named_parameters():
            if trained_only and not parameter.requires_grad:
                continue
            with deepspeed.zero.GatheredParameters([parameter], enabled=self._stage == 3):
                whole = parameter.detach().cpu().clone() if self._ranks.first else None
            if whole is not None:
                yield name, whole
        if self._ranks.first and not trained_only:
            kept = model.state_dict().keys()
            yield from ((name, buffer.cpu()) for name, buffer in model.named_buffers() if name in kept)
