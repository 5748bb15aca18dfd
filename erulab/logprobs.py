"""Log-probabilities from hidden states and labels: the only code that turns logits into probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

Head = Callable[[torch.Tensor], torch.Tensor]
# (logits, labels, reference logits or None) -> values: (positions, vocabulary), (positions,) and, without gradient,
# (positions, vocabulary) -> (positions,). Logits are in float32, or in float64 for a float64 model.
ValueFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]

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


def token_values(
    hidden: torch.Tensor,
    head: Head,
    labels: torch.Tensor,
    functions: Sequence[ValueFunction],
    *,
    nll: bool = False,
    reference: tuple[torch.Tensor, Head] | None = None,
) -> list[torch.Tensor]:
    """Evaluates functions of the logits at each position, without holding logits of all positions at once.

    Args:
        hidden: (positions, width) final hidden states, one per label.
        head: maps (n, width) to (n, vocabulary) logits.
        labels: (positions,) int64.
        functions: (logits, labels, reference logits or None) -> (n,); logits in float32 or float64.
        nll: whether the NLL of the labels, without gradient, is wanted beside them.
        reference: (positions, width) final states of the model before unlearning, and its head.
    Returns:
        (positions,) values of each function; then the NLL in nats, if wanted.
    """

    def chunk(h: torch.Tensor, y: torch.Tensor, *ref_h: torch.Tensor) -> torch.Tensor:
        ref_logits = None
        if reference is not None:
            with torch.no_grad():
                ref_logits = _wide(reference[1](ref_h[0]))
        logits = _wide(head(h))
        columns = [function(logits, y, ref_logits) for function in functions]
        if nll:
            columns.append(_nll(logits.detach(), y))
        return torch.stack(columns, 1)

    return list(_in_chunks(chunk, hidden, labels, *([reference[0]] if reference is not None else [])).unbind(1))


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


def _in_chunks(function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    """Applies a function to CHUNK positions of all tensors at a time and joins the results."""
    if len(tensors[0]) <= CHUNK:
        return function(*tensors)
    parts = []
    for chunk in zip(*(tensor.split(CHUNK) for tensor in tensors), strict=True):
        # Recomputed in backward: otherwise the graph would keep the logits of every chunk.
        parts.append(checkpoint(function, *chunk, use_reentrant=False) if torch.is_grad_enabled() else function(*chunk))
    return torch.cat(parts)
