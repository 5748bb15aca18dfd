"""Bytes that autograd keeps of mixtures of experts and of recurrent layers, for `activations.py`.

They were read off transformers' own code on the CPU, as the rest of `activations.py` was: the product of all experts in
one call, and the gated delta rule without flash-linear-attention, whose kernels keep less.
"""

from __future__ import annotations

import math

from erulab.costs.families import Mixture, Recurrence
from erulab.costs.flops import DELTA_CHUNK


def experts_bytes(mixture: Mixture, width: int, number: int, frozen: bool) -> float:
    """Returns bytes per token that a mixture keeps beside the norm before it.

    Args:
        width: of the model.
        number: bytes of a weight; autocast leaves the product of all experts in the weights' format.
        frozen: whether the experts are not trained, so that they do not keep what they read.
    """
    per_expert = (3 if frozen else 4) * mixture.width + (1 if frozen else 2) * width
    # The expert, its order and its weight for each of the token's experts; the router's probabilities.
    routing = (4 * 8 + 2 * 4) * mixture.active + 4 * mixture.experts
    return number * per_expert * mixture.active + routing


def last_of_experts_bytes(mixture: Mixture, number: int) -> float:
    """Returns bytes per token that a mixture keeps where only its experts' last matrices are trained.

    Args:
        number: bytes of a weight.
    """
    return (number * mixture.width + 8 + 4) * mixture.active  # with each token's place and weight


def recurrent_bytes(delta: Recurrence, length: float, product: int, number: int) -> float:
    """Returns bytes per token that the gated delta rule keeps beside the norm before it.

    Args:
        length: of the rows. Each is filled up to whole chunks, which makes this an upper bound for short rows.
        product: bytes of an element that a matrix product gives.
        number: bytes of a weight; it differs from `product` under autocast.
    """
    k, v = delta.key_dim, delta.value_dim
    # Bytes per head and position: per position of the chunk, per key and value channel, and per entry of a state.
    pairs, keys, values, states = {
        (4, 4): (20, 48, 32, 4),
        (2, 2): (20, 32, 28, 4),
        (2, 4): (14, 38, 30, 8),
    }[product, number]
    per_head = pairs * DELTA_CHUNK + keys * k + values * v + states * k * v / DELTA_CHUNK
    filled = math.ceil(length / DELTA_CHUNK) * DELTA_CHUNK / length
    # Before and after the convolution, what the last matrix reads, and ten numbers per head.
    rest = product * (2 * delta.channels + delta.values) + 40 * delta.value_heads
    return delta.value_heads * per_head * filled + rest
