"""The preference-style loss npo, simnpo, dpo and eru share, and the class they are all instances of.

They differ in the quantity (sum or per-token mean, answer alone or pair) and in the reward's margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab.methods.base import ForgetRows, Margin, MethodOptions, Normalizer, Pairs, RowNLL, Trains
from erulab.options import positive

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


def preference_loss(x: torch.Tensor, margin: torch.Tensor, *, beta: float, scale: float) -> torch.Tensor:
    """`scale * softplus(-beta (x - margin))`, nats.

    Args:
        x: (rows,) NLL of the answer to forget (sum or per-token mean), or its difference to the paired answer's.
        margin: (rows,) without gradient, in the unit of x.
        beta: inverse temperature; scale: 2/beta (NPO, SimNPO) or 1 (TRL, alpha-DPO).
    Returns:
        (rows,) losses; gradient to x is -scale * beta * sigmoid(-beta (x - margin)).
    Source: METHODS.md sections 3 and 4; NPO eq. 3, SimNPO eq. 4.
    """
    return scale * torch.nn.functional.softplus(-beta * (x - margin))


@dataclass
class PreferenceOptions(MethodOptions):
    """`scale` null means 2/beta. `length_normalize` makes x a per-token mean: it changes what beta means."""

    beta: float = 0.1
    length_normalize: bool = False
    pairs: Pairs = Pairs.none
    scale: Optional[float] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("beta", self.beta)
        positive("scale", self.scale)


class PreferenceMethod:
    """Preference-style forgetting with the reward's margin."""

    trains = Trains.forget
    normalizer = Normalizer.rows
    takes_reward = True

    def __init__(self, options: PreferenceOptions) -> None:
        self.options = options
        self.pairs = options.pairs

    def losses(self, rows: ForgetRows, margin: Margin | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if margin is None:
            raise TypeError(f"{type(self).__name__} needs a reward's margin")
        x = self._quantity(rows.policy, rows.paired)
        x_ref = torch.zeros_like(x) if rows.reference is None else self._quantity(rows.reference, rows.paired_reference)
        depth = (x - x_ref).detach()
        m = margin(x_ref, depth)
        beta = self.options.beta
        losses = preference_loss(x, m, beta=beta, scale=self.options.scale or 2 / beta)
        metrics = {
            "nll": rows.policy.mean,
            "margin": m,
            "implicit_reward": -beta * (x - m),
            "weight": 2 * torch.sigmoid(-beta * (x - m)),
        }
        if rows.reference is not None:
            metrics["depth"] = rows.policy.mean - rows.reference.mean
        if rows.paired is not None:
            # Logged apart: a margin met by raising one refusal is hiding, not forgetting.
            metrics["paired_nll"] = rows.paired.mean
        return losses, {name: value.detach() for name, value in metrics.items()}

    def _quantity(self, answer: RowNLL, paired: RowNLL | None) -> torch.Tensor:
        # Sums, not means, unless length_normalize: NPO's beta is per sequence, and dividing by the length here
        # would silently change its strength.
        x = answer.mean if self.options.length_normalize else answer.total
        if paired is None:
            return x
        return x - (paired.mean if self.options.length_normalize else paired.total)
