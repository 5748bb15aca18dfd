"""Bytes that a forward keeps for its backward, in closed form.

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

from erulab.costs.backward import Gradients
from erulab.costs.families import Norm
from erulab.costs.setup import MicroBatch, NumberFormat, Reads, TrainingSetup
from erulab.costs.shapes import Block, ModelShape, Place
from erulab.costs.special_activations import experts_bytes, last_of_experts_bytes, recurrent_bytes
from erulab.costs.trained import is_weight_of

# Equal to that of erulab/logprobs.py (a test compares them), which loads torch; this module must not.
CHUNK = 1024


@dataclass(frozen=True)
class SavedActivations:
    """Bytes of activations that autograd keeps."""

    ends: float  # of the final norm and of the head's input
    block: float  # of the block that keeps most
    blocks: float  # of all blocks
    count: int  # blocks that a gradient reaches
    boundary: float  # of one block's input
    casts: float  # bfloat16 copies of matrices, under autocast


def saved_activations(
    shape: ModelShape, micro: MicroBatch, training: TrainingSetup, gradients: Gradients
) -> SavedActivations:
    """Returns what autograd keeps of a forward over `micro`, for a backward that computes these gradients."""
    numbers, last = training.numbers, micro.reads.last
    reached = list(gradients.blocks(shape.layers if last is None else last))
    found = [
        _block_activations(shape, shape.every_block[index], micro, training, names, inputs)
        for index, names, inputs in reached
    ]
    d, stream = shape.width, numbers.weight
    ends = casts = 0.0
    if last is None:
        norm = _norm_activations(shape, numbers, 0, trained=gradients.trained.norm)
        ends = norm * micro.tokens + numbers.product * d * micro.supervised
    if numbers is NumberFormat.autocast:
        head = shape.head_weights if last is None else 0
        # 4-bit weights are converted for each product anew, also in backward.
        cast = [] if training.quantized else reached
        casts = 2 * (head + sum(_cast_entries(shape.every_block[i], names, inputs) for i, names, inputs in cast))
    return SavedActivations(ends, max(found, default=0.0), sum(found), len(found), stream * d * micro.tokens, casts)


def _cast_entries(block: Block, trained: frozenset[str], inputs: bool) -> int:
    """Counts the entries of a block's matrices whose bfloat16 copies are kept until the backward has ended.

    Autocast leaves the product of all experts in the format of their weights.
    """
    used = block.linears[-1:] if _only_last(block, trained, inputs) else block.linears
    return sum(linear.weights for linear in used if linear.copies == 1)


def _only_last(block: Block, trained: frozenset[str], inputs: bool) -> bool:
    """Tells whether a block's gradient goes no further than its last matrix."""
    return not inputs and all(is_weight_of(name, block.linears[-1]) for name in trained)


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
    shape: ModelShape,
    block: Block,
    micro: MicroBatch,
    training: TrainingSetup,
    trained: frozenset[str],
    inputs: bool,
) -> float:
    """Returns the bytes that autograd keeps of one block.

    Args:
        trained: names of its trained weights.
        inputs: whether its input requires a gradient.
    """
    numbers, family, adapters = training.numbers, shape.family, training.adapters
    product = numbers.product
    # A frozen matrix does not need its input in backward; experts share what their router's norm gives.
    keeping = [linear for linear in block.linears if any(is_weight_of(name, linear) for name in trained)]
    keeps = {place: sum(one.place is place and one.copies == 1 for one in keeping) for place in Place}
    norms = any("norm" in name or "ln_" in name for name in trained)
    mixture = shape.mixture if block.linears[-1].copies > 1 else None
    if _only_last(block, trained, inputs):
        after = _norm_activations(shape, numbers, 0, trained=False) if family.post_norms else 0.0
        last = product * shape.mlp_width if mixture is None else last_of_experts_bytes(mixture, numbers.weight)
        return (last + after) * micro.tokens
    readers = [keeps[Place.attention_in], keeps[Place.mlp_in]]
    kept = sum(
        _norm_activations(shape, numbers, n, trained=norms) for n in ([sum(readers)] if family.parallel else readers)
    )
    if family.post_norms:
        kept += 2 * _norm_activations(shape, numbers, 0, trained=norms)
    if block.recurrent and shape.recurrence is not None:
        kept += recurrent_bytes(shape.recurrence, micro.length, product, numbers.weight)
    else:
        kept += _attention_activations(shape, micro, training, norms=norms, result=keeps[Place.attention_out] > 0)
    if mixture is not None:
        frozen = not any(linear.copies > 1 for linear in keeping)
        kept += experts_bytes(mixture, shape.width, numbers.weight, frozen=frozen)
    else:
        # A 4-bit matrix gives its product in the format of its input; what the last matrix reads is cast for its
        # adapter.
        inner = numbers.weight if training.quantized else product
        kept += (inner * (_mlp_kept(shape) - 1) + product * bool(keeps[Place.mlp_out])) * shape.mlp_width
    if adapters.rank:
        kept += product * adapters.rank * len(keeping)
        # Adapters cast their input themselves: here the result of attention.
        if numbers is NumberFormat.autocast and keeps[Place.attention_out]:
            kept += product * shape.heads * shape.head_dim
    return kept * micro.tokens


def _attention_activations(
    shape: ModelShape, micro: MicroBatch, training: TrainingSetup, *, norms: bool, result: bool
) -> float:
    """Returns the bytes per token that attention keeps between its matrices.

    Args:
        norms: whether norms are trained.
        result: whether the matrix after it keeps what it reads.
    """
    numbers, family = training.numbers, shape.family
    product, q, kv = numbers.product, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    fused = not (training.eager_attention or shape.capped_scores)
    # A fused kernel keeps its own result; otherwise the next matrix alone does.
    kept: float = product * (3 + (fused or result) + family.partial_rotary) * q
    if family.gated_attention:
        kept += product * (1 + result) * q
        if numbers is NumberFormat.fp32:  # otherwise the norm casts the queries, and their gate is not kept with them
            kept += product * q
    if family.qk_norm:
        normalized = 0 if not norms else 4 if family.norm is Norm.wide_rms else product
        kept += (4 + normalized) * (q + kv)
        kept += 8 if family.wide_qk_norm else 4 * (shape.heads + shape.kv_heads)
    if fused:
        return kept + 4 * shape.heads + product * micro.length
    # The softmax in float32, and its copy in the format of products.
    kept += (4 if numbers is NumberFormat.fp32 else 6) * shape.heads * micro.length
    if shape.capped_scores:
        kept += (product * shape.heads + 1) * micro.length  # the capped scores, and the mask as truth values
    return kept


def _mlp_kept(shape: ModelShape) -> int:
    """Returns how many tensors of the MLP's width a block keeps."""
    if shape.family.gated:
        return 4
    # transformers computes gelu_new in steps: its input, half of it, tanh, 1 + tanh and the result are kept.
    return 5 if shape.activation == "gelu_new" else 2


def logits_bytes(shape: ModelShape, micro: MicroBatch, numbers: NumberFormat) -> float:
    """Returns the bytes of one chunk's float32 logits at their largest, in backward.

    NLL holds log-probabilities, their gradient and the gradient of the logits. A function of the logits, such as KL to
    the reference, holds two numbers per token of the vocabulary, and its backward three more. Capped logits are kept
    once more, as the head gives them.
    """
    reads = micro.reads
    nll = min(micro.supervised - reads.without_nll, CHUNK) + reads.lens
    values = min(reads.valued, CHUNK)
    held, backward = 2 * reads.functions * values, min(nll, CHUNK)
    capped = numbers.product * max(nll, values) if shape.capped_logits else 0
    return shape.vocabulary * (4.0 * max(nll + 2 * backward + held, nll + held + 3 * values) + capped)


def states_bytes(shape: ModelShape, reads: Reads, numbers: NumberFormat) -> float:
    """Returns the bytes of states that losses keep.

    These are the states, their difference to what they are compared with, and that where it is the reference's states;
    and the reference's final states at positions whose logits are compared.
    """
    states = numbers.weight * (2 * reads.states + reads.compared_states)
    return shape.width * (states + numbers.product * reads.compared)
