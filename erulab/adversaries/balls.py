"""Per-token balls around hidden states: the geometry noise and latent_pgd share."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import lazy_loader

from erulab.adversaries.directions import unit, wide
from erulab.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from erulab.tokens.batch import Batch
else:
    torch = lazy_loader.load("torch")


class Tokens(Enum):
    """Which tokens of a perturbed row are perturbed."""

    prompt = "prompt"
    all = "all"  # on response tokens a perturbation can write the label itself


def perturbed_layer(layer: int | None, blocks: int) -> int:
    """The block whose input is perturbed: a quarter of the depth, at least 1 where there are two, unless given.

    Raises:
        ConfigError: the model has no such block.
    """
    if layer is None:
        return max(blocks // 4, min(1, blocks - 1))
    if layer >= blocks:
        raise ConfigError(f"adversary.layer must be between 0 and {blocks - 1} for this model, got {layer}")
    return layer


def perturbed_tokens(batch: Batch, tokens: Tokens) -> torch.Tensor:
    """(rows, length) bool."""
    return prompt_tokens(batch) if tokens is Tokens.prompt else batch.attention_mask.bool()


def prompt_tokens(batch: Batch) -> torch.Tensor:
    """(rows, length) bool; of a text without a prompt all tokens but the first, an attention sink.

    There a perturbation can write the label: a text that is learned as it is has nothing else.
    """
    text = batch.without_prompt & batch.attention_mask.bool()
    text[:, 0] = False
    return batch.prompt_mask | text


def median_norm(states: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    """(rows,) median norm of each row's own prompt tokens but the first, without gradient.

    The first token is an attention sink whose norm can be a hundred times the others'. A row without other
    prompt tokens gets 0.

    Args:
        states: (rows, length, width); prompt: (rows, length) bool.
    """
    norms = wide(states.detach()).norm(dim=-1)
    others = prompt.clone()
    others[:, 0] = False
    return norms.masked_fill(~others, torch.nan).nanquantile(0.5, dim=1).nan_to_num(0.0)


def project_ball(delta: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Shortens each token's vector to at most the row's radius: delta (rows, length, width), radius (rows,)."""
    norm = delta.norm(dim=-1, keepdim=True)
    limit = radius[:, None, None]
    # Divided, not multiplied by the reciprocal of a clamped norm: vectors inside stay as they are, bit for bit.
    return torch.where(norm > limit, unit(delta) * limit, delta)


def descend(
    delta: torch.Tensor, gradient: torch.Tensor, *, radius: torch.Tensor, tokens: torch.Tensor, steps: int
) -> torch.Tensor:
    """One of `steps` steps down a loss: `Proj(delta - eta g/||g||)` a token, eta = 2.5 radius / steps.

    Args:
        delta, gradient: (rows, length, width); radius: (rows,); tokens: (rows, length) bool, where delta may be.
    Source: METHODS.md section 6; PGD, Madry et al. 2018, arXiv:1706.06083 (step 2.5 eps / steps).
    """
    eta = (2.5 / steps) * radius[:, None, None]
    return project_ball(delta - eta * unit(gradient), radius) * tokens.unsqueeze(-1)


def of_rows(values: torch.Tensor, rows: torch.Tensor, length: int) -> torch.Tensor:
    """Each forward row's own values, zero for rows that are not perturbed.

    Forward and forget batch are padded differently, but a prompt stands at the same positions in both.

    Args:
        values: (forget rows, their length, ...); rows: (forward rows,) int64 forget row, or -1.
    Returns:
        (forward rows, length, ...).
    """
    own = values[rows.clamp(min=0), :length]
    own = own * (rows >= 0).view(-1, *[1] * (own.dim() - 1))
    missing = length - own.shape[1]
    return torch.cat([own, own.new_zeros(own.shape[0], missing, *own.shape[2:])], 1) if missing else own
