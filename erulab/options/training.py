"""Options of learning and unlearning, and of the engine that runs them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Optional

from erulab.options.ranges import require, require_epochs, require_fraction, require_not_negative, require_positive

# Options of `trainer` and `target` that change how a model is trained, but not the model that comes out.
NOT_IN_PRODUCT = ("micro_batch", "micro_tokens", "log_every", "save_every", "checkpointing", "compile")


class Schedule(Enum):
    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class Combine(Enum):
    sum = "sum"  # both gradients as they are
    pcgrad = "pcgrad"  # the forget gradient without its part against the retain gradient
    blur = "blur"  # the retain gradient, with its part along the forget gradient replaced by descent on it
    gru = "gru"  # pcgrad against a moving average of the retain gradient


class Precision(Enum):
    auto = "auto"  # bf16 on GPUs that have it, otherwise fp32
    fp32 = "fp32"
    bf16 = "bf16"


class OptimizerName(Enum):
    adamw = "adamw"
    adamw_8bit = "adamw_8bit"  # AdamW with moments in 8 bits; needs bitsandbytes
    paged_adamw_8bit = "paged_adamw_8bit"  # the same, in host memory where the GPU is full
    adafactor = "adafactor"  # row and column sums in place of a matrix's moments
    sgd = "sgd"  # without momentum: no state

    @property
    def in_8_bits(self) -> bool:
        """Whether bitsandbytes keeps the state."""
        return self in (OptimizerName.adamw_8bit, OptimizerName.paged_adamw_8bit)


class EngineName(Enum):
    auto = "auto"  # local on the CPU or one GPU, zero2 from two GPUs on
    local = "local"  # plain PyTorch in one process
    zero0 = "zero0"
    zero1 = "zero1"
    zero2 = "zero2"
    zero3 = "zero3"


class Offload(Enum):
    none = "none"
    cpu = "cpu"
    nvme = "nvme"


class Keep(Enum):
    last = "last"  # the model after the last step
    best = "best"  # the evaluated step that is best on half of the facts to forget; the other half is reported


@dataclass
class TrainerOptions:
    """Unlearning, and the precision and memory options of every training. Accumulation is derived."""

    lr: float = 1e-5  # learning rate at its highest, after the warmup
    epochs: float = 5  # passes over the forget rows
    steps: Optional[int] = None  # optimiser steps; wins over epochs
    # forget rows per step (a pair counts as one); retain_ratio times as many retain rows are added
    global_batch: int = 32
    retain_ratio: float = 1.0  # retain rows per forget row: more rehearsal at the same number of steps
    combine: Combine = Combine.sum  # how the gradients of forget and retain loss become one
    combine_gamma: float = 1.0  # combine=blur: factor of the forget gradient
    combine_decay: float = 0.9  # combine=gru: share of the earlier average of retain gradients that stays in a step
    micro_batch: Optional[int] = None  # forget rows per forward; null: global_batch / processes
    # padded tokens per forward, in place of micro_batch: rows are grouped to fit; learning and attacks obey it too
    micro_tokens: Optional[int] = None
    optimizer: OptimizerName = OptimizerName.adamw  # of unlearning; target, oracle and attacks learn with adamw
    weight_decay: float = 0.01  # decoupled weight decay of matrices
    warmup: float = 0.1  # share of the steps in which the learning rate rises from 0
    schedule: Schedule = Schedule.linear  # how the learning rate changes after the warmup
    clip: float = 1.0  # largest gradient norm; 0: no clipping
    log_every: int = 1  # steps between lines of metrics.jsonl
    save_every: Optional[int] = None  # steps between resumable checkpoints; null: only when the run is stopped
    eval_every: Optional[int] = None  # steps between evaluations during unlearning (a trajectory); null: none
    keep: Keep = Keep.last  # the step whose model is the product
    # with keep=best: least share of the target's utility; among the steps that keep it, |knowledge left| decides
    keep_utility: float = 0.9
    precision: Precision = Precision.auto  # number format of forward and backward passes
    checkpointing: bool = False  # gradient checkpointing: less memory, about a third more time
    compile: bool = False  # torch.compile, block by block

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        require_epochs("epochs", self.epochs)
        require_positive("steps", self.steps)
        require_positive("global_batch", self.global_batch)
        require_positive("retain_ratio", self.retain_ratio)
        require_not_negative("combine_gamma", self.combine_gamma)
        require(0 <= self.combine_decay < 1, "combine_decay", "in [0, 1)", self.combine_decay)
        require_positive("micro_batch", self.micro_batch)
        require_positive("micro_tokens", self.micro_tokens)
        alone = self.micro_batch is None or self.micro_tokens is None
        require(alone, "micro_tokens", "null where micro_batch is set (both size a forward)", self.micro_tokens)
        require_not_negative("weight_decay", self.weight_decay)
        require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        require_not_negative("clip", self.clip)
        require_positive("log_every", self.log_every)
        require_positive("save_every", self.save_every)
        require_positive("eval_every", self.eval_every)
        require_fraction("keep_utility", self.keep_utility)


@dataclass
class TargetOptions:
    """Learning the target and the oracle: never changed by a sweep over `trainer.*` or `seed`."""

    lr: float = 1e-5  # learning rate at its highest, after the warmup
    epochs: float = 5  # passes over the rows that are learned
    global_batch: int = 32  # rows per step
    micro_batch: Optional[int] = None  # rows per forward; null: global_batch / processes
    weight_decay: float = 0.01  # AdamW's weight decay
    warmup: float = 0.1  # share of the steps in which the learning rate rises from 0
    schedule: Schedule = Schedule.linear  # how the learning rate changes after the warmup
    clip: float = 1.0  # largest gradient norm; 0: no clipping
    seed: int = 0  # draws the order of rows and, for a model from scratch, its initial weights
    oracle_seeds: int = 1  # number of oracles, learned with seed, seed + 1, ...; their spread is in the interval of K

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        require_epochs("epochs", self.epochs)
        require_positive("global_batch", self.global_batch)
        require_positive("micro_batch", self.micro_batch)
        require_not_negative("weight_decay", self.weight_decay)
        require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        require_not_negative("clip", self.clip)
        require_positive("oracle_seeds", self.oracle_seeds)


def product_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of `trainer` or `target` that a model depends on, for keys.

    Args:
        values: all options by name, as their dataclass holds them or as plain values.
    """
    return {name: value for name, value in values.items() if name not in NOT_IN_PRODUCT}


@dataclass
class EngineOptions:
    """Where training runs. `auto`: local on CPU or one GPU, zero2 from two GPUs on."""

    name: EngineName = EngineName.auto
    processes: Optional[int] = None  # on each host; null: one per GPU, or 1 without GPUs
    nodes: int = 1  # number of hosts; the same command is typed on each
    rendezvous: Optional[str] = None  # HOST:PORT where the hosts meet: the name of one of them and a free port of it
    # cpu: optimizer state (with zero3 the weights too) in host memory; nvme (with zero3): the state on a disk
    offload: Offload = Offload.none
    nvme_path: Optional[str] = None  # a folder on that disk
    # seconds for which one of several processes may neither compute nor wake up while the others wait for it
    timeout: float = 600.0

    def __post_init__(self) -> None:
        require_positive("processes", self.processes)
        require_positive("nodes", self.nodes)
        require_positive("timeout", self.timeout)
        address = re.fullmatch(r"[\w.-]+:(\d{1,5})", self.rendezvous or "any:1")
        fits = address is not None and 0 < int(address[1]) < 2**16
        require(fits, "rendezvous", "HOST:PORT with a port between 1 and 65535", self.rendezvous)

    @property
    def world(self) -> int:
        """Number of processes over all hosts, once `processes` has been chosen (launching.engine_choice)."""
        return self.nodes * (self.processes or 1)
