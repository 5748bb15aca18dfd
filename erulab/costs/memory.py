"""Estimates the bytes that training takes on one device, by part, in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

from erulab.costs.activations import logits_bytes, saved_activations, states_bytes
from erulab.costs.backward import Gradients
from erulab.costs.setup import MicroBatch, NumberFormat, TrainingSetup
from erulab.costs.shapes import ModelShape
from erulab.costs.states import state_bytes, trained_matrices, update_bytes
from erulab.costs.trained import trained_weights, weight_shapes
from erulab.options import OptimizerName

# DeepSpeed's defaults, which erulab does not change, as counts of numbers (deepspeed/runtime/zero/config.py).
BUCKET = 500_000_000
LIVE = 1_000_000_000
PREFETCH = 50_000_000

# Bytes of an nf4 weight: a code of 4 bits; for each 64 weights a scale of 8 bits, and for each 256 scales a float32.
NF4 = 0.5 + (1 + 4 / 256) / 64


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
    shapes = weight_shapes(shape, training.adapters)
    names = tuple(shapes) if training.trained is None else training.trained
    sizes = [math.prod(shapes[name]) for name in names]
    trained = sum(sizes)
    share = 1 / sharding.processes
    zero = sharding.stage is not None and sharding.stage > 0

    gradients_of = Gradients(trained_weights(shape, names), training.adapters, training.checkpointing)
    kept = saved_activations(shape, micro, training, gradients_of)
    rounded = shape.dense_weights if training.quantized else 0
    whole = (everything - rounded) * numbers.weight + rounded * NF4
    weights = whole * (share if sharding.stage == 3 else 1) + kept.casts
    gradients = trained * numbers.weight * (share if sharding.stage in (2, 3) else 1)
    # DeepSpeed's sharded and bf16 optimizers also keep float32 master weights, and cast the gradient to float32 for the
    # update.
    master = zero or numbers is NumberFormat.bf16
    matrices = trained_matrices(shapes[name] for name in names)
    kept_state = state_bytes(training.optimizer, matrices, trained)
    state = (kept_state + (4 * trained if master else 0)) * (share if zero else 1)
    update = trained * 4 * (share if zero else 1) if master else 0.0
    update += update_bytes(training.optimizer, matrices)
    buffers = _deepspeed_buffers(shape, training)

    # Without checkpointing the input of a block is part of what the block keeps.
    boundaries = kept.count * kept.boundary if training.checkpointing else 0.0
    blocks = boundaries + kept.block if training.checkpointing else kept.blocks
    activations = kept.ends + blocks + states_bytes(shape, micro.reads, numbers)
    logits = logits_bytes(shape, micro, numbers)
    if training.quantized:
        # Each tensor is rounded as it is read; in the end the adapters are put on the whole model in host memory.
        own, host = whole, 4.0 * shape.parameters
        loading = own + numbers.weight * max(linear.stored for linear in shape.linears)
    elif training.loads_whole:
        # Read into host memory, then moved to the device; a frozen copy stays whole and float32.
        own = host = 4.0 * shape.parameters
        loading = own
    else:
        # Stage 3 reads one tensor at a time, of which each process keeps its part (training/sharded.py).
        own, host = share * numbers.weight * shape.parameters, 0.0
        loading = own + numbers.weight * shape.head_weights
    reference = own if training.frozen_copy and not training.adapters.rank else 0.0
    loading += reference
    if training.optimizer is OptimizerName.paged_adamw_8bit and training.pages:
        host, state = max(host, state), state - kept_state
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
        steady, largest = training.copies.steady(trained), max(sizes)
        waiting += training.copies.beside_forwards(trained, numbers.weight)
        final = training.copies.after_forwards(trained, numbers.weight, largest, gradients)
    # Between forward and backward: the logits, and then the head's gradient, are held beside all activations
    # (under autocast in both formats).
    both = head * (1.5 if numbers is NumberFormat.autocast else 1)
    # A block in its backward holds the gradients of its MLP's products beside its activations.
    products = (
        numbers.product * micro.tokens * ((2 if shape.family.gated else 1) * shape.active_mlp_width + shape.width)
    )
    beside = max(logits, logits / 3 + both) if micro.reads.last is None else products
    turn = waiting + activations - (kept.block if training.checkpointing else 0.0) + beside
    working = kept.block - kept.boundary + products
    if training.quantized:
        working += numbers.product * max(
            one.stored for one in shape.linears if one.copies == 1
        )  # converted for its product
    recomputed = max(waiting, head) + boundaries + working if training.checkpointing else 0.0
    # At the end a tied embedding has one gradient from each side, and their sum where it is not taken in place.
    copies = (1 if numbers is NumberFormat.autocast else 2) + (not micro.alone) if shape.tied else 0
    end = gradients + max(copies * head, working - gradients / max(kept.count, 1))
    if training.copies is not None:
        end += waiting
    fixed = weights + state + reference + buffers + steady
    peak = max(loading, fixed + max(turn, recomputed, end, gradients + update, final))
    return Memory(weights, gradients, state, activations, logits, reference, buffers, loading, peak, host)


def _deepspeed_buffers(shape: ModelShape, training: TrainingSetup) -> float:
    """Returns the bytes of DeepSpeed's buffers: gradient buckets, and the weights that stage 3 has gathered."""
    stage, size = training.sharding.stage, training.numbers.weight
    if stage in (1, 2):
        return float(BUCKET * size)
    if stage == 3:
        return float((BUCKET + min(shape.parameters, LIVE + PREFETCH)) * size)
    return 0.0
