"""Log-probabilities from hidden states and labels: the only code that turns logits into probabilities."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

Head = Callable[[torch.Tensor], torch.Tensor]

# Positions whose logits exist at once: 1024 x 128k vocabulary in float32 is 0.5 GB.
CHUNK = 1024


def token_nll(hidden: torch.Tensor, head: Head, labels: torch.Tensor) -> torch.Tensor:
    """Computes the NLL of each label without holding logits of all positions at once.

    Args:
        hidden: (positions, width) final hidden states, one per label.
        head: maps (n, width) to (n, vocabulary) logits.
        labels: (positions,) int64.
    Returns:
        (positions,) nats, float32 (float64 for a float64 model).
    """
    return _in_chunks(lambda h, y: _nll(head(h), y), hidden, labels)


def token_kl(ref_hidden: torch.Tensor, ref_head: Head, hidden: torch.Tensor, head: Head) -> torch.Tensor:
    """Computes KL(p_ref || p) over the whole vocabulary at each position; value and gradient are 0 at p = p_ref.

    Args:
        ref_hidden, hidden: (positions, width) final hidden states of the frozen reference and of the policy.
        ref_head, head: their maps to logits.
    Returns:
        (positions,) nats.
    """

    def chunk(ref_h: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            ref_logp = F.log_softmax(_wide(ref_head(ref_h)), -1)
        logp = F.log_softmax(_wide(head(h)), -1)
        return (ref_logp.exp() * (ref_logp - logp)).sum(-1)

    return _in_chunks(chunk, ref_hidden, hidden)


def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Computes log-probabilities over the last axis, in float32 or float64."""
    return F.log_softmax(_wide(logits), -1)


def log_prob_moments(logp: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes mean and standard deviation of log p(token) for a token drawn from p.

    Args:
        logp: (positions, vocabulary) log-probabilities.
    Returns:
        (positions,) mean, which is minus the entropy, and (positions,) deviation, in nats.
    """
    p = logp.exp()
    # A token of probability 0 is never drawn; 0 * -inf would be nan.
    finite = logp.masked_fill(p == 0, 0.0)
    mean = (p * finite).sum(-1)
    return mean, ((p * finite.square()).sum(-1) - mean.square()).clamp(min=0).sqrt()


def row_sums(values: torch.Tensor, supervised: torch.Tensor) -> torch.Tensor:
    """Sums per-token values by row.

    Args:
        values: (tokens,) in row-major order of the mask.
        supervised: (rows, length) bool mask of the tokens.
    Returns:
        (rows,) sums.
    """
    rows = supervised.nonzero(as_tuple=True)[0]
    return values.new_zeros(supervised.shape[0]).index_add(0, rows, values)


def _nll(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(_wide(logits), labels, reduction="none")


def _wide(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _in_chunks(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], first: torch.Tensor, second: torch.Tensor
) -> torch.Tensor:
    """Applies a function to CHUNK positions of both tensors at a time and joins the results."""
    if len(first) <= CHUNK:
        return function(first, second)
    parts = []
    for a, b in zip(first.split(CHUNK), second.split(CHUNK), strict=True):
        # Recomputed in backward: otherwise the graph would keep the logits of every chunk.
        parts.append(checkpoint(function, a, b, use_reentrant=False) if torch.is_grad_enabled() else function(a, b))
    return torch.cat(parts)
