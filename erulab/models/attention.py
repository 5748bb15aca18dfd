"""Attention over packed rows, registered with transformers; padded forwards still go to its own SDPA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from erulab.models.options import Attention
from erulab.models.packing import Piece

# Without "sdpa" in it: transformers refuses every such name for Gemma 2, whose capped scores SDPA cannot compute.
PACKED = "packed_attention"
# Model types whose packed rows give the same states (a test compares each). Others may have layers that ignore pieces,
# such as the recurrent layers of Qwen 3.5.
PACKING = frozenset(
    {
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma",
        "gemma2",
        "gemma3_text",
        "phi",
        "phi3",
        "gpt2",
        "mixtral",
        "qwen3_moe",
        "olmoe",
    }
)


def implementation(attention: Attention, model_type: str) -> str:
    """Returns transformers' name for `model.attention`: for sdpa, our function where the model type can be packed."""
    return PACKED if attention is Attention.sdpa and model_type in PACKING else attention.value


def reads_trees(config: PreTrainedConfig, length: int) -> bool:
    """Tells whether a model can run packed rows of up to `length` tokens in one call with a tree mask."""
    window = getattr(config, "sliding_window", None)
    return (
        config.model_type in PACKING
        and config._attn_implementation in (PACKED, Attention.sdpa.value)
        # The tree mask has no sliding window.
        and (window is None or length <= window)
    )


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    pieces: Sequence[Piece] | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Computes causal attention of each piece to itself and to the pieces before it.

    The signature is that of transformers' attention functions, which calls this one by keyword.

    Args:
        query: (1, heads, packed, head width).
        key, value: (1, key-value heads, packed, head width).
        pieces: of the packed sequence; None for a padded batch, which goes to transformers' own function.
        sliding_window: tokens that a token sees, itself included; None: all before it.
        softcap: scores are softcap * tanh(score / softcap); None: as they are.
    Returns:
        (1, packed, heads, head width), None.
    """
    if pieces is None and softcap is not None:
        if attention_mask is None:  # transformers leaves out masks that are only causal, and no longer than the window
            attention_mask = _causal_mask(query, key, sliding_window)
        return _attend_capped(query, key, value, attention_mask, scaling, softcap, dropout).transpose(1, 2), None
    if pieces is None and query.shape[2] == 1 and query.device.type == "cpu" and not torch.is_grad_enabled():
        return _attend_from_one_token(query, key, value, attention_mask, scaling or query.shape[-1] ** -0.5), None
    if pieces is None:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            sliding_window=sliding_window,
            **options,
        )
    lengths = [piece.length for piece in pieces]
    queries, keys, values = (x.split(lengths, 2) for x in (query, key, value))
    results = []
    for i, piece in enumerate(pieces):
        seen = (*piece.before, i)
        k, v = (x[i] if len(seen) == 1 else torch.cat([x[j] for j in seen], 2) for x in (keys, values))
        windowed = sliding_window is not None and sliding_window < k.shape[2]
        masked = windowed or piece.before or softcap is not None
        mask = _causal_mask(queries[i], k, sliding_window) if masked else None
        if softcap is not None:
            results.append(_attend_capped(queries[i], k, v, mask, scaling, softcap, dropout))
            continue
        results.append(
            F.scaled_dot_product_attention(
                queries[i], k, v, mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=True
            )
        )
    return torch.cat(results, 2).transpose(1, 2), None


def _attend_from_one_token(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """Computes attention of the one token that generation is at.

    SDPA would copy keys and values for each head that shares them, which takes longer than all the rest.

    Args:
        query: (rows, heads, 1, head width).
        key, value: (rows, key-value heads, positions, head width).
        mask: (rows, 1, 1, positions), bool (seen) or float (added); None: all positions are seen.
    Returns:
        (rows, 1, heads, head width).
    """
    rows, heads, _, width = query.shape
    scores = query.reshape(rows, key.shape[1], -1, width) @ key.transpose(2, 3) * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return (scores.softmax(-1) @ value).reshape(rows, 1, heads, width)


def _attend_capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float,
    dropout: float,
) -> torch.Tensor:
    """Computes attention whose scores are capped before the softmax (Gemma 2), which SDPA cannot.

    Args:
        query: (rows, heads, n, head width).
        key, value: (rows, key-value heads, m, head width).
        mask: broadcast to (rows, 1, n, m), bool (seen) or float (added); None: all positions are seen.
    Returns:
        (rows, heads, n, head width).
    """
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = (scores / softcap).tanh() * softcap
    if mask is not None:
        # A finite number, so that a row of padding that sees nothing gives no NaN.
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    weights = F.dropout(scores.softmax(-1, dtype=wide).to(value.dtype), dropout)
    return weights @ value


def _causal_mask(query: torch.Tensor, key: torch.Tensor, window: int | None) -> torch.Tensor:
    """Returns a (queries, keys) float mask: 0 where a query sees a key, otherwise -inf.

    The last query stands at the position of the last key.
    """
    n, m = query.shape[2], key.shape[2]
    distance = torch.arange(m - n, m, device=query.device)[:, None] - torch.arange(m, device=query.device)
    seen = distance >= 0
    if window is not None:
        seen &= distance < window
    return torch.zeros(n, m, device=query.device, dtype=query.dtype).masked_fill(~seen, -torch.inf)


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
