"""Bytes that training takes on one device, by part, in closed form.

What autograd keeps was read off transformers' blocks with saved-tensor hooks (tests/costs does it again), not off a
rule of thumb. In a Llama block, for each token:

- twice, a norm: the states it reads, the same normalised, and its result, which the matrices after it read;
- query, key, value and the attention's result. With rows of unequal length a mask is passed, and then key and value
  are repeated to all heads. Attention keeps one log-sum-exp a head, and its mask as numbers, one line of the row's
  square;
- gate, act(gate), up and their product: four times the MLP's width.

With weights in float32 under autocast a norm's result is cast anew for each matrix that reads it, and every matrix is
kept as a bfloat16 copy until the backward has ended. A GPU's attention kernels may keep a little less than the CPU's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from erulab.costs.shapes import NO_ADAPTERS, Adapters, ModelShape, Norm, Place

# As erulab/logprobs.py has it (a test compares): that file loads torch, this one must not.
CHUNK = 1024

# DeepSpeed's defaults, which erulab leaves as they are, in numbers (deepspeed/runtime/zero/config.py).
BUCKET = 500_000_000
LIVE = 1_000_000_000
PREFETCH = 50_000_000


class Numbers(Enum):
    """The types weights and activations have."""

    fp32 = "fp32"
    autocast = "autocast"  # engine=local in bf16: weights float32, matrix products bfloat16
    bf16 = "bf16"  # DeepSpeed in bf16: weights bfloat16, with float32 masters in the optimizer

    @property
    def weight(self) -> int:
        """Bytes of a weight and of its gradient."""
        return 2 if self is Numbers.bf16 else 4

    @property
    def product(self) -> int:
        """Bytes of what a matrix product gives."""
        return 4 if self is Numbers.fp32 else 2


@dataclass(frozen=True)
class Sharding:
    """How weights, gradients and optimizer state are spread: ZeRO stage, or None for plain PyTorch."""

    stage: int | None = None
    processes: int = 1
    offload: bool = False  # optimizer state in host memory; in stage 3 weights that no forward needs too
    disk: bool = False  # that state on a disk instead


@dataclass(frozen=True)
class MicroBatch:
    """The largest micro-batch of one process: `rows` of `length` tokens, padding included."""

    rows: float
    length: float
    supervised: float  # positions of all rows together
    kl_supervised: float = 0.0  # those of them whose KL to a frozen copy is taken too
    alone: bool = True  # the only one of its step: no gradients wait while it runs forward

    @property
    def tokens(self) -> float:
        return self.rows * self.length


@dataclass(frozen=True)
class Training:
    """What else decides how much is kept."""

    numbers: Numbers = Numbers.fp32
    sharding: Sharding = Sharding()
    checkpointing: bool = False
    adapters: Adapters = NO_ADAPTERS
    eager_attention: bool = False
    frozen_copy: bool = False  # retain kl without adapters keeps the model before unlearning
    loads_whole: bool = True  # the model lies whole and in float32 on each process before its engine is built


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, and in host memory for one process.

    Gradients come to be while activations go, and a model is loaded before it is sharded: `peak` is the largest of
    these moments, so the parts add up to more.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    reference: float
    buffers: float
    loading: float
    peak: float
    host: float


def memory(shape: ModelShape, micro: MicroBatch, training: Training) -> Memory:
    """What one device holds while it trains on `micro`."""
    sharding, numbers = training.sharding, training.numbers
    everything = shape.parameters + shape.adapter_parameters(training.adapters)
    trained = shape.adapter_parameters(training.adapters) if training.adapters.rank else shape.parameters
    share = 1 / sharding.processes
    zero = sharding.stage is not None and sharding.stage > 0

    weights = everything * numbers.weight * (share if sharding.stage == 3 else 1)
    if numbers is Numbers.autocast:
        weights += 2 * (shape.linear_weights + shape.head_weights)
    gradients = trained * numbers.weight * (share if sharding.stage in (2, 3) else 1)
    # Two moments in float32. DeepSpeed's sharded optimizers and its bf16 one keep a float32 master too, and make the
    # gradient float32 for the update.
    master = zero or numbers is Numbers.bf16
    state = trained * (12 if master else 8) * (share if zero else 1)
    update = trained * 4 * (share if zero else 1) if master else 0.0
    buffers = _buffers(shape, training)

    kept = _activations(shape, micro, training)
    # Without checkpointing a boundary is the first thing its block keeps.
    boundaries = shape.layers * kept.boundary if training.checkpointing else 0.0
    activations = kept.ends + boundaries + kept.block * (1 if training.checkpointing else shape.layers)
    logits = _logits(shape, micro)
    if training.loads_whole:
        # Read into host memory and then onto the device (stages/context.py); a frozen copy stays like that.
        own = host = 4.0 * shape.parameters
        loading = own
    else:
        # Stage 3 reads a tensor at a time, and each process keeps its part of it (training/sharded.py).
        own, host = share * numbers.weight * shape.parameters, 0.0
        loading = own + numbers.weight * shape.head_weights
    reference = own if training.frozen_copy and not training.adapters.rank else 0.0
    loading += reference
    if sharding.offload:
        # Gradients leave the device as they come.
        moved = update if sharding.disk else state + update
        if sharding.stage == 3:
            moved += weights
            weights = 0.0
        if sharding.stage == 3 and not training.loads_whole:
            moved, loading, reference = moved + reference, numbers.weight * shape.head_weights, 0.0
        host = max(host, moved)
        state = update = gradients = 0.0

    head = 0.0 if training.adapters.rank or sharding.offload else numbers.weight * shape.head_weights
    waiting = 0.0 if micro.alone else gradients
    # From forward to backward: the logits, and then the head's gradient, stand beside all that is kept
    # (under autocast in both types).
    both = head * (1.5 if numbers is Numbers.autocast else 1)
    turn = waiting + activations - (kept.block if training.checkpointing else 0.0) + max(logits, logits / 3 + both)
    # A block in backward has the gradients of its MLP's products beside what it keeps.
    working = (
        kept.block
        - kept.boundary
        + numbers.product * micro.tokens * ((2 if shape.family.gated else 1) * shape.mlp_width + shape.width)
    )
    recomputed = max(waiting, head) + boundaries + working if training.checkpointing else 0.0
    # At the end a tied embedding has its gradient from both sides, and their sum where it is not taken in place.
    copies = (1 if numbers is Numbers.autocast else 2) + (not micro.alone) if shape.tied else 0
    end = gradients + max(copies * head, working - gradients / max(shape.layers, 1))
    fixed = weights + state + reference + buffers
    peak = max(loading, fixed + max(turn, recomputed, end, gradients + update))
    return Memory(weights, gradients, state, activations, logits, reference, buffers, loading, peak, host)


@dataclass(frozen=True)
class _Kept:
    """Bytes that autograd keeps: of the final norm and the head's input; of one block; of a block's input alone."""

    ends: float
    block: float
    boundary: float


def _activations(shape: ModelShape, micro: MicroBatch, training: Training) -> _Kept:
    numbers, family, adapters = training.numbers, shape.family, training.adapters
    product, stream = numbers.product, numbers.weight
    # A frozen matrix needs nothing of what it reads.
    keeping = [linear for linear in shape.linears if adapters.on(linear) or not adapters.rank]
    keeps = {place: sum(linear.place is place for linear in keeping) for place in Place}
    d, q, kv = shape.width, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim

    def norm(readers: int) -> float:
        """Bytes a token: the states, the same normalised, and the result for the matrices that read it."""
        # Autocast casts the result for each of them; one tensor serves them all otherwise.
        results = product * d * (readers if numbers is Numbers.autocast else min(readers, 1))
        if family.norm is Norm.layer:
            return stream * d + results + 8
        # A frozen weight needs no gradient, so what it multiplies is not kept.
        normalized = 0 if adapters.rank else 4 if family.norm is Norm.wide_rms else stream
        return (4 + normalized) * d + results + 4

    readers = [keeps[Place.attention_in], keeps[Place.mlp_in]]
    block = sum(norm(n) for n in ([sum(readers)] if family.parallel else readers))
    block += product * (4 + family.partial_rotary) * q
    if family.qk_norm:
        block += (4 + product) * (q + kv) + 4 * (shape.heads + shape.kv_heads)
    if training.eager_attention:
        # The softmax in float32, and its copy in the products' type.
        block += (4 if numbers is Numbers.fp32 else 6) * shape.heads * micro.length
    else:
        block += 4 * shape.heads + product * micro.length
    block += product * (_mlp_kept(shape) - (not keeps[Place.mlp_out])) * shape.mlp_width
    if adapters.rank:
        block += product * adapters.rank * len(keeping)
        # Adapters cast what they read on their own: here the attention's result.
        if numbers is Numbers.autocast and keeps[Place.attention_out]:
            block += product * q
    ends = norm(0) * micro.tokens + product * d * micro.supervised
    return _Kept(ends, block * micro.tokens, stream * d * micro.tokens)


def _mlp_kept(shape: ModelShape) -> int:
    """How many tensors of the MLP's width a block keeps."""
    if shape.family.gated:
        return 4
    # transformers spells gelu_new out: its input, half of it, tanh, 1 + tanh and the result are kept.
    return 5 if shape.activation == "gelu_new" else 2


def _logits(shape: ModelShape, micro: MicroBatch) -> float:
    """Float32 numbers of one chunk at their worst, in backward.

    NLL: log-probabilities, their gradient and the logits' gradient. KL: beside those both models' probabilities.
    """
    nll, kl = min(micro.supervised, CHUNK), min(micro.kl_supervised, CHUNK)
    return 4.0 * shape.vocabulary * max(3 * nll + 2 * kl, nll + 5 * kl)


def _buffers(shape: ModelShape, training: Training) -> float:
    """DeepSpeed's own: buckets that gradients are reduced in, and weights that stage 3 has gathered."""
    stage, size = training.sharding.stage, training.numbers.weight
    if stage in (1, 2):
        return float(BUCKET * size)
    if stage == 3:
        return float((BUCKET + min(shape.parameters, LIVE + PREFETCH)) * size)
    return 0.0
