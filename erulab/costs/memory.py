"""Estimates the bytes that training takes on one device, by part, in closed form.

The tensors that autograd keeps were read off transformers' blocks with saved-tensor hooks (tests/costs repeats it).
In a Llama block these are, for each token:

- for each of two norms: the states it reads, the normalised states, and its result, which the next matrices read;
- query, key, value and the result of attention. With rows of unequal length a mask is passed, and then key and value
  are repeated to all heads. Attention keeps one log-sum-exp per head, and its mask as numbers: one line of the row's
  square per token;
- gate, act(gate), up and their product: four times the width of the MLP.

With float32 weights under autocast, the result of a norm is cast once for each matrix that reads it, and a bfloat16
copy of every matrix is kept until the backward has ended. Attention kernels of GPUs may keep a little less than those
of CPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from erulab.costs.activations import experts_bytes, recurrent_bytes
from erulab.costs.families import Norm
from erulab.costs.shapes import NO_ADAPTERS, Adapters, Block, ModelShape, Place

# Equal to that of erulab/logprobs.py (a test compares them), which loads torch; this module must not.
CHUNK = 1024

# DeepSpeed's defaults, which erulab does not change, as counts of numbers (deepspeed/runtime/zero/config.py).
BUCKET = 500_000_000
LIVE = 1_000_000_000
PREFETCH = 50_000_000


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
class MicroBatch:
    """The largest micro-batch of one process: `rows` rows of `length` tokens, padding included."""

    rows: float
    length: float
    supervised: float  # positions of all rows together
    kl_supervised: float = 0.0  # positions at which the KL to a frozen copy is computed too
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
    eager_attention: bool = False
    frozen_copy: bool = False  # retain=kl without adapters keeps the model before unlearning
    loads_whole: bool = True  # each process holds the whole model in float32 before its engine is built


@dataclass(frozen=True)
class Memory:
    """Bytes on one device (`host`: in host memory) for one process.

    `peak` is the largest of several moments, not the sum of the parts: gradients appear while activations are freed,
    and a model is loaded before it is sharded.
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


def estimate_memory(shape: ModelShape, micro: MicroBatch, training: TrainingSetup) -> Memory:
    """Estimates what one device holds while it trains on `micro`."""
    sharding, numbers = training.sharding, training.numbers
    everything = shape.parameters + shape.adapter_parameters(training.adapters)
    trained = shape.adapter_parameters(training.adapters) if training.adapters.rank else shape.parameters
    share = 1 / sharding.processes
    zero = sharding.stage is not None and sharding.stage > 0

    weights = everything * numbers.weight * (share if sharding.stage == 3 else 1)
    if numbers is NumberFormat.autocast:
        weights += 2 * (shape.dense_weights + shape.head_weights)
    gradients = trained * numbers.weight * (share if sharding.stage in (2, 3) else 1)
    # Two moments in float32. DeepSpeed's sharded and bf16 optimizers also keep float32 master weights, and cast the
    # gradient to float32 for the update.
    master = zero or numbers is NumberFormat.bf16
    state = trained * (12 if master else 8) * (share if zero else 1)
    update = trained * 4 * (share if zero else 1) if master else 0.0
    buffers = _deepspeed_buffers(shape, training)

    kept = _saved_activations(shape, micro, training)
    # Without checkpointing the input of a block is part of what the block keeps.
    boundaries = shape.layers * kept.boundary if training.checkpointing else 0.0
    activations = kept.ends + boundaries + (kept.block if training.checkpointing else kept.blocks)
    logits = _logits_bytes(shape, micro, numbers)
    if training.loads_whole:
        # Read into host memory, then moved to the device; a frozen copy stays whole and float32.
        own = host = 4.0 * shape.parameters
        loading = own
    else:
        # Stage 3 reads one tensor at a time, of which each process keeps its part (training/sharded.py).
        own, host = share * numbers.weight * shape.parameters, 0.0
        loading = own + numbers.weight * shape.head_weights
    reference = own if training.frozen_copy and not training.adapters.rank else 0.0
    loading += reference
    if sharding.offload:
        # Gradients leave the device as soon as they are computed.
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
    # Between forward and backward: the logits, and then the head's gradient, are held beside all activations
    # (under autocast in both formats).
    both = head * (1.5 if numbers is NumberFormat.autocast else 1)
    turn = waiting + activations - (kept.block if training.checkpointing else 0.0) + max(logits, logits / 3 + both)
    # A block in its backward holds the gradients of its MLP's products beside its activations.
    working = (
        kept.block
        - kept.boundary
        + numbers.product * micro.tokens * ((2 if shape.family.gated else 1) * shape.active_mlp_width + shape.width)
    )
    recomputed = max(waiting, head) + boundaries + working if training.checkpointing else 0.0
    # At the end a tied embedding has one gradient from each side, and their sum where it is not taken in place.
    copies = (1 if numbers is NumberFormat.autocast else 2) + (not micro.alone) if shape.tied else 0
    end = gradients + max(copies * head, working - gradients / max(shape.layers, 1))
    fixed = weights + state + reference + buffers
    peak = max(loading, fixed + max(turn, recomputed, end, gradients + update))
    return Memory(weights, gradients, state, activations, logits, reference, buffers, loading, peak, host)


@dataclass(frozen=True)
class _SavedActivations:
    """Bytes of activations that autograd keeps."""

    ends: float  # of the final norm and of the head's input
    blocks: float  # of all blocks
    block: float  # of the block that keeps most
    boundary: float  # of one block's input


def _saved_activations(shape: ModelShape, micro: MicroBatch, training: TrainingSetup) -> _SavedActivations:
    numbers, d = training.numbers, shape.width
    kinds = {block: _block_bytes(shape, block, micro, training) for block in shape.blocks()}
    ends = _norm_bytes(shape, training, 0) * micro.tokens + numbers.product * d * micro.supervised
    return _SavedActivations(
        ends,
        sum(n * kinds[block] for block, n in shape.blocks().items()) * micro.tokens,
        max(kinds.values()) * micro.tokens,
        numbers.weight * d * micro.tokens,
    )


def _norm_bytes(shape: ModelShape, training: TrainingSetup, readers: int) -> float:
    """Returns bytes per token: the states, the normalised states, and the result that `readers` matrices read."""
    numbers, d = training.numbers, shape.width
    # Autocast casts the result once per reader; otherwise all readers share one tensor.
    results = numbers.product * d * (readers if numbers is NumberFormat.autocast else min(readers, 1))
    if shape.family.norm is Norm.layer:
        return numbers.weight * d + results + 8
    # The frozen weight of a norm needs no gradient, so its input is not kept.
    normalized = 0 if training.adapters.rank else 4 if shape.family.norm is Norm.wide_rms else numbers.weight
    return (4 + normalized) * d + results + 4


def _block_bytes(shape: ModelShape, block: Block, micro: MicroBatch, training: TrainingSetup) -> float:
    """Returns the bytes per token that one block keeps."""
    numbers, family, adapters = training.numbers, shape.family, training.adapters
    product = numbers.product
    # A frozen matrix does not need its input in backward; experts share what their router's norm gives.
    keeping = [linear for linear in block.linears if adapters.on(linear) or not adapters.rank]
    keeps = {place: sum(one.place is place and one.copies == 1 for one in keeping) for place in Place}
    readers = [keeps[Place.attention_in], keeps[Place.mlp_in]]
    kept = sum(_norm_bytes(shape, training, n) for n in ([sum(readers)] if family.parallel else readers))
    if family.post_norms:
        kept += 2 * _norm_bytes(shape, training, 0)
    if block.recurrent and shape.recurrence is not None:
        kept += recurrent_bytes(shape.recurrence, micro.length, product, numbers.weight)
    else:
        kept += _attention_bytes(shape, micro, training)
    mixture = next((shape.mixture for linear in block.linears if linear.copies > 1), None)
    if mixture is not None:
        kept += experts_bytes(mixture, shape.width, numbers.weight, frozen=adapters.rank > 0)
    else:
        kept += product * (_mlp_kept(shape) - (not keeps[Place.mlp_out])) * shape.mlp_width
    if adapters.rank:
        kept += product * adapters.rank * len(keeping)
        # Adapters cast their input themselves: here the result of attention.
        if numbers is NumberFormat.autocast and keeps[Place.attention_out]:
            kept += product * shape.heads * shape.head_dim
    return kept


def _attention_bytes(shape: ModelShape, micro: MicroBatch, training: TrainingSetup) -> float:
    """Returns the bytes per token that attention keeps between its matrices."""
    numbers, family = training.numbers, shape.family
    product, q, kv = numbers.product, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    kept: float = product * (4 + family.partial_rotary) * q
    if family.gated_attention:
        kept += product * 2 * q
        if numbers is NumberFormat.fp32:  # otherwise the norm casts the queries, and their gate is not kept with them
            kept += product * q
    if family.qk_norm:
        kept += (4 + (4 if family.norm is Norm.wide_rms else product)) * (q + kv)
        kept += 8 if family.wide_qk_norm else 4 * (shape.heads + shape.kv_heads)
    if training.eager_attention or shape.capped_scores:
        # The softmax in float32, and its copy in the format of products.
        kept += (4 if numbers is NumberFormat.fp32 else 6) * shape.heads * micro.length
        if shape.capped_scores:
            kept += (product * shape.heads + 1) * micro.length  # the capped scores, and the mask as truth values
    else:
        kept += 4 * shape.heads + product * micro.length
    return kept


def _mlp_kept(shape: ModelShape) -> int:
    """Returns how many tensors of the MLP's width a block keeps."""
    if shape.family.gated:
        return 4
    # transformers computes gelu_new in steps: its input, half of it, tanh, 1 + tanh and the result are kept.
    return 5 if shape.activation == "gelu_new" else 2


def _logits_bytes(shape: ModelShape, micro: MicroBatch, numbers: NumberFormat) -> float:
    """Returns the bytes of one chunk's float32 logits at their largest, in backward.

    NLL holds log-probabilities, their gradient and the gradient of the logits; KL also both models' probabilities.
    Capped logits are kept once more, as the head gives them.
    """
    nll, kl = min(micro.supervised, CHUNK), min(micro.kl_supervised, CHUNK)
    capped = numbers.product * max(nll, kl) if shape.capped_logits else 0
    return shape.vocabulary * (4.0 * max(3 * nll + 2 * kl, nll + 5 * kl) + capped)


def _deepspeed_buffers(shape: ModelShape, training: TrainingSetup) -> float:
    """Returns the bytes of DeepSpeed's buffers: gradient buckets, and the weights that stage 3 has gathered."""
    stage, size = training.sharding.stage, training.numbers.weight
    if stage in (1, 2):
        return float(BUCKET * size)
    if stage == 3:
        return float((BUCKET + min(shape.parameters, LIVE + PREFETCH)) * size)
    return 0.0
