"""L2 balls around hidden states, shared by noise and latent_pgd.

A row's radius is eps_rel times the median norm of its own prompt states, its first token left out.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import lazy_loader

from erulab.adversaries.directions import at_least_float32, unit
from erulab.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from erulab.tokens.batch import Batch
else:
    torch = lazy_loader.load("torch")


class Tokens(Enum):
    """The tokens of a perturbed row that are perturbed."""

    prompt = "prompt"
    all = "all"  # responses too, where a perturbation can write the label itself


class Ball(Enum):
    """What a ball holds."""

    token = "token"  # the perturbation of one token
    sequence = "sequence"  # those of all perturbed tokens of a row together, as one vector


def perturbed_layer(layer: int | None, blocks: int) -> int:
    """Returns the block whose input is perturbed.

    Args:
        layer: as given; None: a quarter of the depth, but at least block 1 of a model with two blocks or more.
        blocks: number of the model's blocks.
    Raises:
        ConfigError: the model has no such block.
    """
    if layer is None:
        return max(blocks // 4, min(1, blocks - 1))
    if layer >= blocks:
        raise ConfigError(f"adversary.layer must be between 0 and {blocks - 1} for this model, got {layer}")
    return layer


def perturbed_tokens(batch: Batch, tokens: Tokens) -> torch.Tensor:
    """Returns (rows, length) bool: the tokens of each row that are perturbed."""
    return prompt_tokens(batch) if tokens is Tokens.prompt else batch.attention_mask.bool()


def prompt_tokens(batch: Batch) -> torch.Tensor:
    """Returns (rows, length) bool: the tokens of each row's prompt, or of its text where there is no prompt.

    The first token of a text is left out, as it is an attention sink. On the other tokens of a text a perturbation can
    write the label itself, but a text that is learned without a prompt has no other tokens.
    """
    text = batch.without_prompt & batch.attention_mask.bool()
    text[:, 0] = False
    return batch.prompt_mask | text


def median_norm(states: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    """Returns (rows,) the median norm of each row's prompt states, without gradient.

    The first token is left out: it is an attention sink, whose norm can be a hundred times that of the other tokens. A
    row without other prompt tokens gets 0.

    Args:
        states: (rows, length, width) hidden states.
        prompt: (rows, length) bool.
    """
    norms = at_least_float32(states.detach()).norm(dim=-1)
    others = prompt.clone()
    others[:, 0] = False
    return norms.masked_fill(~others, torch.nan).nanquantile(0.5, dim=1).nan_to_num(0.0)


def project_into_ball(delta: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Shortens each token's vector to at most its row's radius.

    Args:
        delta: (rows, length, width).
        radius: (rows,), in the unit of delta.
    Returns:
        (rows, length, width); vectors inside the ball keep their bits.
    """
    norm = delta.norm(dim=-1, keepdim=True)
    limit = radius[:, None, None]
    # torch.where, not a multiplication by a clamped ratio: vectors inside the ball keep their bits.
    return torch.where(norm > limit, unit(delta) * limit, delta)


def descent_step(
    delta: torch.Tensor,
    gradient: torch.Tensor,
    *,
    radius: torch.Tensor,
    tokens: torch.Tensor,
    steps: int,
    ball: Ball = Ball.token,
) -> torch.Tensor:
    """Takes one step of projected gradient descent: `Proj(delta - eta g/||g||)` per ball, eta = 2.5 radius / steps.

    Args:
        delta, gradient: (rows, length, width).
        radius: (rows,) radius of each row's balls.
        tokens: (rows, length) bool: the tokens that may be perturbed; delta is 0 elsewhere.
        steps: number of steps of the whole descent.
        ball: whether each token has a ball, or each row.
    Returns:
        (rows, length, width) the next delta.
    Source: PGD, Madry et al. 2018, arXiv:1706.06083 (step 2.5 eps / steps).
    """
    eta = (2.5 / steps) * radius[:, None, None]
    if ball is Ball.sequence:
        # One long vector per row, of its perturbed tokens alone.
        flat, flat_gradient = ((x * tokens.unsqueeze(-1)).flatten(1).unsqueeze(1) for x in (delta, gradient))
        return project_into_ball(flat - eta * unit(flat_gradient), radius).view_as(delta)
    return project_into_ball(delta - eta * unit(gradient), radius) * tokens.unsqueeze(-1)


def values_of_forward_rows(values: torch.Tensor, rows: torch.Tensor, length: int) -> torch.Tensor:
    """Looks up, for each row of a forward, the values of its forget row; zeros for rows that are left alone.

    The two batches are padded to different lengths, but a prompt stands at the same positions in both.

    Args:
        values: (forget rows, their length, ...).
        rows: (forward rows,) int64 index of the forget row; -1: left alone.
        length: of the forward's rows.
    Returns:
        (forward rows, length, ...).
    """
    own = values[rows.clamp(min=0), :length]
    own = own * (rows >= 0).view(-1, *[1] * (own.dim() - 1))
    missing = length - own.shape[1]
    return torch.cat([own, own.new_zeros(own.shape[0], missing, *own.shape[2:])], 1) if missing else own
