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

from erulab.costs.backward import Gradients
from erulab.costs.gradient_copies import GradientCopies
from erulab.costs.shapes import NO_ADAPTERS, Adapters, ModelShape, Norm, Place
from erulab.costs.trained import is_weight_of, trained_weights, weight_sizes

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
    eager_attention: bool = False
    trained: tuple[str, ...] | None = None  # names of the trained weights; None: all, or all adapters
    frozen_copy: bool = False  # a term compares with the model before unlearning: kept, unless adapters are trained
    copies: GradientCopies | None = None  # of a step that takes the gradients of forget and retain rows apart
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
    sizes = weight_sizes(shape, training.adapters)
    names = tuple(sizes) if training.trained is None else training.trained
    trained = sum(sizes[name] for name in names)
    share = 1 / sharding.processes
    zero = sharding.stage is not None and sharding.stage > 0

    weights = everything * numbers.weight * (share if sharding.stage == 3 else 1)
    if numbers is NumberFormat.autocast:
        weights += 2 * (shape.linear_weights + shape.head_weights)
    gradients = trained * numbers.weight * (share if sharding.stage in (2, 3) else 1)
    # Two moments in float32. DeepSpeed's sharded and bf16 optimizers also keep float32 master weights, and cast the
    # gradient to float32 for the update.
    master = zero or numbers is NumberFormat.bf16
    state = trained * (12 if master else 8) * (share if zero else 1)
    update = trained * 4 * (share if zero else 1) if master else 0.0
    buffers = _deepspeed_buffers(shape, training)

    gradients_of = Gradients(trained_weights(shape, names), training.adapters, training.checkpointing)
    kept = _saved_activations(shape, micro, training, gradients_of)
    # Without checkpointing the input of a block is part of what the block keeps.
    boundaries = kept.count * kept.boundary if training.checkpointing else 0.0
    blocks = boundaries + kept.block if training.checkpointing else kept.blocks
    activations = kept.ends + blocks + _states_bytes(shape, micro.reads, numbers)
    logits = _logits_bytes(shape, micro)
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

    head = 0.0 if sharding.offload or not gradients_of.trained.head else numbers.weight * shape.head_weights
    waiting = 0.0 if micro.alone else gradients
    steady = final = 0.0
    if training.copies is not None:
        steady, largest = training.copies.steady(trained), max(sizes[name] for name in names)
        waiting += training.copies.beside_forwards(trained, numbers.weight)
        final = training.copies.after_forwards(trained, numbers.weight, largest, gradients)
    # Between forward and backward: the logits, and then the head's gradient, are held beside all activations
    # (under autocast in both formats).
    both = head * (1.5 if numbers is NumberFormat.autocast else 1)
    turn = waiting + activations - (kept.block if training.checkpointing else 0.0) + max(logits, logits / 3 + both)
    # A block in its backward holds the gradients of its MLP's products beside its activations.
    working = (
        kept.block
        - kept.boundary
        + numbers.product * micro.tokens * ((2 if shape.family.gated else 1) * shape.mlp_width + shape.width)
    )
    recomputed = max(waiting, head) + boundaries + working if training.checkpointing else 0.0
    # At the end a tied embedding has one gradient from each side, and their sum where it is not taken in place.
    copies = (1 if numbers is NumberFormat.autocast else 2) + (not micro.alone) if shape.tied else 0
    end = gradients + max(copies * head, working - gradients / max(kept.count, 1))
    if training.copies is not None:
        end += waiting
    fixed = weights + state + reference + buffers + steady
    peak = max(loading, fixed + max(turn, recomputed, end, gradients + update, final))
    return Memory(weights, gradients, state, activations, logits, reference, buffers, loading, peak, host)


@dataclass(frozen=True)
class _SavedActivations:
    """Bytes of activations that autograd keeps."""

    ends: float  # of the final norm and of the head's input
    block: float  # of the block that keeps most
    blocks: float  # of all blocks
    count: int  # blocks that a gradient reaches
    boundary: float  # of one block's input


def _saved_activations(
    shape: ModelShape, micro: MicroBatch, training: TrainingSetup, gradients: Gradients
) -> _SavedActivations:
    numbers, last = training.numbers, micro.reads.last
    found = [
        _block_activations(shape, micro, training, names, inputs)
        for _, names, inputs in gradients.blocks(shape.layers if last is None else last)
    ]
    d, stream = shape.width, numbers.weight
    ends = 0.0
    if last is None:
        norm = _norm_activations(shape, numbers, 0, trained=gradients.trained.norm)
        ends = norm * micro.tokens + numbers.product * d * micro.supervised
    return _SavedActivations(ends, max(found, default=0.0), sum(found), len(found), stream * d * micro.tokens)


def _norm_activations(shape: ModelShape, numbers: NumberFormat, readers: int, *, trained: bool) -> float:
    """Returns bytes per token: the states, the normalised states, and the result that `readers` matrices read."""
    family, d, product, stream = shape.family, shape.width, numbers.product, numbers.weight
    # Autocast casts the result once per reader; otherwise all readers share one tensor.
    results = product * d * (readers if numbers is NumberFormat.autocast else min(readers, 1))
    if family.norm is Norm.layer:
        return stream * d + results + 8
    # The frozen weight of a norm needs no gradient, so its input is not kept.
    normalized = 0 if not trained else 4 if family.norm is Norm.wide_rms else stream
    return (4 + normalized) * d + results + 4


def _block_activations(
    shape: ModelShape, micro: MicroBatch, training: TrainingSetup, trained: frozenset[str], inputs: bool
) -> float:
    """Returns the bytes that autograd keeps of one block.

    Args:
        trained: names of its trained weights.
        inputs: whether its input requires a gradient.
    """
    numbers, family, adapters = training.numbers, shape.family, training.adapters
    product = numbers.product
    # A frozen matrix does not need its input in backward.
    keeping = [linear for linear in shape.linears if any(is_weight_of(name, linear) for name in trained)]
    keeps = {place: sum(linear.place is place for linear in keeping) for place in Place}
    norms = any("norm" in name or "ln_" in name for name in trained)
    if not inputs and not norms and keeping and all(linear.place is Place.mlp_out for linear in keeping):
        return product * shape.mlp_width * micro.tokens
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    readers = [keeps[Place.attention_in], keeps[Place.mlp_in]]
    block = sum(
        _norm_activations(shape, numbers, n, trained=norms) for n in ([sum(readers)] if family.parallel else readers)
    )
    block += product * (4 + family.partial_rotary) * q
    if family.qk_norm:
        block += (4 + product) * (q + kv) + 4 * (shape.heads + shape.kv_heads)
    if training.eager_attention:
        # The softmax in float32, and its copy in the format of products.
        block += (4 if numbers is NumberFormat.fp32 else 6) * shape.heads * micro.length
    else:
        block += 4 * shape.heads + product * micro.length
    block += product * (_mlp_kept(shape) - (not keeps[Place.mlp_out])) * shape.mlp_width
    if adapters.rank:
        block += product * adapters.rank * len(keeping)
        # Adapters cast their input themselves: here the result of attention.
        if numbers is NumberFormat.autocast and keeps[Place.attention_out]:
            block += product * q
    return block * micro.tokens


def _mlp_kept(shape: ModelShape) -> int:
    """Returns how many tensors of the MLP's width a block keeps."""
    if shape.family.gated:
        return 4
    # transformers computes gelu_new in steps: its input, half of it, tanh, 1 + tanh and the result are kept.
    return 5 if shape.activation == "gelu_new" else 2


def _logits_bytes(shape: ModelShape, micro: MicroBatch) -> float:
    """Returns the bytes of one chunk's float32 logits at their largest, in backward.

    NLL holds log-probabilities, their gradient and the gradient of the logits. A function of the logits, such as KL to
    the reference, holds two numbers per token of the vocabulary, and its backward three more.
    """
    reads = micro.reads
    nll = min(micro.supervised - reads.without_nll, CHUNK) + reads.lens
    values = min(reads.valued, CHUNK)
    held, backward = 2 * reads.functions * values, min(nll, CHUNK)
    return 4.0 * shape.vocabulary * max(nll + 2 * backward + held, nll + held + 3 * values)


def _states_bytes(shape: ModelShape, reads: Reads, numbers: NumberFormat) -> float:
    """Returns the bytes of states that losses keep.

    These are the states, their difference to what they are compared with, and that where it is the reference's states;
    and the reference's final states at positions whose logits are compared.
    """
    states = numbers.weight * (2 * reads.states + reads.compared_states)
    return shape.width * (states + numbers.product * reads.compared)


def _deepspeed_buffers(shape: ModelShape, training: TrainingSetup) -> float:
    """Returns the bytes of DeepSpeed's buffers: gradient buckets, and the weights that stage 3 has gathered."""
    stage, size = training.sharding.stage, training.numbers.weight
    if stage in (1, 2):
        return float(BUCKET * size)
    if stage == 3:
        return float((BUCKET + min(shape.parameters, LIVE + PREFETCH)) * size)
    return 0.0
