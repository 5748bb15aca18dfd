"""Bytes that a forward without gradient takes, in closed form: key-value cache, activations, logits."""

from __future__ import annotations

from erulab.costs.shapes import ModelShape

WIDE = 4  # bytes of a float32: logits become log-probabilities in float32


def cache_bytes(shape: ModelShape, number: int) -> int:
    """Returns the bytes of keys and values of one token, which generation keeps in all layers with attention.

    Args:
        number: bytes per number of the model's weights.
    """
    layers = sum(not block.recurrent for block in shape.every_block)
    return 2 * layers * shape.kv_heads * shape.head_dim * number


def activation_bytes(shape: ModelShape, number: int) -> int:
    """Returns the bytes of activations of one token in a forward without gradient, at their largest in a block.

    That is in the MLP (the residual stream, the normalised states, gate, up and their product) or in attention (query,
    key, value, key and value of all heads, the result).

    Args:
        number: bytes per number of the model's weights.
    """
    mlp = (3 if shape.family.gated else 2) * shape.active_mlp_width
    attention = 4 * shape.heads * shape.head_dim + 2 * shape.kv_heads * shape.head_dim
    return (2 * shape.width + max(mlp, attention)) * number


def logits_bytes(shape: ModelShape, number: int) -> int:
    """Returns the bytes of one position's logits and log-probabilities over the vocabulary.

    Args:
        number: bytes per number of the model's weights.
    """
    return shape.vocabulary * (number + WIDE + (WIDE if number != WIDE else 0))
