"""The settings that the memory of training depends on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from erulab.costs.gradient_copies import GradientCopies
from erulab.costs.shapes import NO_ADAPTERS, Adapters
from erulab.options import OptimizerName


class NumberFormat(Enum):
    """The number formats of weights and activations."""

    fp32 = "fp32"
    autocast = "autocast"  # engine=local in bf16: weights float32, matrix products bfloat16
    bf16 = "bf16"  # DeepSpeed in bf16: weights bfloat16, with float32 masters in the optimizer

    @property
    def weight(self) -> int:
        """Returns the bytes of a weight, and of its gradient."""
        return 2 if self is NumberFormat.bf16 else 4

    @property
    def product(self) -> int:
        """Returns the bytes of an element that a matrix product gives."""
        return 4 if self is NumberFormat.fp32 else 2


@dataclass(frozen=True)
class Sharding:
    """The division of weights, gradients and optimizer state among processes."""

    stage: int | None = None  # of ZeRO; None: plain PyTorch
    processes: int = 1
    offload: bool = False  # optimizer state in host memory; in stage 3 also weights that no forward needs
    disk: bool = False  # the optimizer state on a disk instead


@dataclass(frozen=True)
class Reads:
    """What losses read of a forward, beside or in place of the NLL of all supervised positions."""

    without_nll: float = 0.0  # supervised positions whose NLL no term reads
    valued: float = 0.0  # positions at which functions of the logits are evaluated
    functions: int = 1  # of the logits, at each of them
    compared: float = 0.0  # positions of those whose logits are compared with the reference's
    lens: float = 0.0  # positions whose states the head reads, summed over layers
    states: float = 0.0  # tokens whose states are kept, summed over layers
    compared_states: float = 0.0  # of those, tokens whose states are compared with the reference's
    last: int | None = None  # the layer at which the forward ends; None: it runs through the head


@dataclass(frozen=True)
class MicroBatch:
    """The largest micro-batch of one process: `rows` rows of `length` tokens, padding included."""

    rows: float
    length: float
    supervised: float  # positions of all rows together
    reads: Reads = Reads()  # what losses read
    alone: bool = True  # whether it is the only one of its step: no gradients are held during its forward

    @property
    def tokens(self) -> float:
        return self.rows * self.length


@dataclass(frozen=True)
class TrainingSetup:
    """The other settings that memory depends on."""

    numbers: NumberFormat = NumberFormat.fp32
    sharding: Sharding = Sharding()
    checkpointing: bool = False
    adapters: Adapters = NO_ADAPTERS
    quantized: bool = False  # the blocks' matrices under the adapters are frozen in nf4
    optimizer: OptimizerName = OptimizerName.adamw
    pages: bool = True  # whether the state of a paged optimizer can leave the device; a CPU has nowhere else
    eager_attention: bool = False
    trained: tuple[str, ...] | None = None  # names of the trained weights; None: all, or all adapters
    frozen_copy: bool = False  # a term compares with the model before unlearning: kept, unless adapters are trained
    copies: GradientCopies | None = None  # of a step that takes the gradients of forget and retain rows apart
    loads_whole: bool = True  # each process holds the whole model in float32 before its engine is built
