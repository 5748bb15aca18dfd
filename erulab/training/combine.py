"""`trainer.combine`: how the gradient g_f of the forget loss and g_r of the retain loss become one.

    sum     g_f + g_r
    pcgrad  g_f' + g_r,  g_f' = g_f - min(0, <g_f, g_r>) / ||g_r||^2 g_r        (Yu et al. 2020, arXiv:2001.06782)
    gru     as pcgrad, with an exponential moving average of g_r in the projection (Wang et al. 2025, arXiv:2503.09117)
    blur    g_r + (gamma - <g_r, g_f> / ||g_f||^2) g_f                          (Reisizadeh et al., arXiv:2506.08164)

Inner products and norms are over all trained weights, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from erulab.options import Combine

Gradient = Sequence[torch.Tensor]  # one tensor per trained weight


def inner(a: Gradient, b: Gradient) -> float:
    """Returns the inner product over all weights."""
    return float(sum((x.double() * y.double()).sum() for x, y in zip(a, b, strict=True)))


def remove_conflict(forget: Gradient, direction: Gradient) -> list[torch.Tensor]:
    """Removes from the forget gradient its part against `direction`, if it has one.

    Args:
        forget: g_f.
        direction: the gradient that must not be worked against.
    Returns:
        g_f - min(0, <g_f, direction>) / ||direction||^2 direction; its inner product with `direction` is >= 0.
    Source: arXiv:2001.06782, algorithm 1.
    """
    along, square = inner(forget, direction), inner(direction, direction)
    factor = min(0.0, along) / square if square else 0.0
    return [f - factor * d for f, d in zip(forget, direction, strict=True)]


def bilevel(forget: Gradient, retain: Gradient, gamma: float) -> list[torch.Tensor]:
    """Returns g_r + (gamma - <g_r, g_f> / ||g_f||^2) g_f: the part of g_r along g_f is replaced by gamma g_f.

    Source: arXiv:2506.08164. With orthogonal gradients and gamma 1 it is the sum.
    """
    square = inner(forget, forget)
    factor = gamma - (inner(retain, forget) / square if square else 0.0)
    return [r + factor * f for f, r in zip(forget, retain, strict=True)]


class Combination:
    """A rule of `trainer.combine`, with the moving average of gru as its state."""

    def __init__(self, rule: Combine, gamma: float, decay: float) -> None:
        """
        Args:
            gamma: of blur.
            decay: of gru's average: the share of the earlier average that stays in a step.
        """
        self._rule, self._gamma, self._decay = rule, gamma, decay
        self._average: list[torch.Tensor] = []

    def __call__(self, forget: Gradient, retain: Gradient) -> list[torch.Tensor]:
        """Returns the gradient of the step.

        Args:
            forget, retain: g_f and g_r, with the weights of their terms, over the global batch.
        """
        if self._rule is Combine.blur:
            return bilevel(forget, retain, self._gamma)
        if self._rule is Combine.pcgrad:
            forget = remove_conflict(forget, retain)
        if self._rule is Combine.gru:
            forget = remove_conflict(forget, self._averaged(retain))
        return [f + r for f, r in zip(forget, retain, strict=True)]

    def _averaged(self, retain: Gradient) -> list[torch.Tensor]:
        """Updates the average by this step's gradient and returns it; in the first step it is that gradient."""
        if not self._average:
            self._average = [r.clone() for r in retain]
        else:
            for average, r in zip(self._average, retain, strict=True):
                average.mul_(self._decay).add_(r, alpha=1 - self._decay)
        return self._average

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {f"average.{i:05d}": average for i, average in enumerate(self._average)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self._average = [state[name] for name in sorted(state)]
