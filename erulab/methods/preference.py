"""The loss that npo, simnpo, dpo, altpo and eru share. Their files state it in closed form, each with its own x and m:

    loss of a forget row = scale * softplus(-beta (x - m)),   scale = 2/beta unless given

    x = the NLL that is raised: s or l of the forgotten answer, or its difference to the paired answer's
    m = the reward's margin, without gradient (rewards/)

The methods differ in defaults only: whether x is a sum (s) or a per-token mean (l), whether there is a paired answer,
and which reward gives m. Each of these is an option of every one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab.methods.base import GradientMethod, Margin, MethodOptions
from erulab.methods.needs import Needs, Pairs, Step
from erulab.methods.seen import ForgetRows, RowNLL, Seen
from erulab.options import require_positive

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


def raised_nll(answer: Seen | RowNLL, paired: Seen | RowNLL | None, *, length_normalize: bool) -> torch.Tensor:
    """Returns x, the quantity that the loss raises: the answer's NLL, less the paired answer's where there is one.

    Args:
        answer: NLL of the answers to forget.
        paired: NLL of the paired answers, in the same order; None: no pairs.
        length_normalize: per-token means instead of sums over the sequence.
    Returns:
        (rows,) nats, or nats per token.
    """
    # Sums, not means, unless length_normalize: NPO's beta is per sequence, and dividing by the length here
    # would silently change its strength.
    x = answer.mean if length_normalize else answer.total
    if paired is None:
        return x
    return x - (paired.mean if length_normalize else paired.total)


def preference_loss(x: torch.Tensor, margin: torch.Tensor, *, beta: float, scale: float) -> torch.Tensor:
    """Returns `scale * softplus(-beta (x - margin))`.

    Args:
        x: (rows,) quantity to raise, nats or nats per token: see `raised_nll`.
        margin: (rows,) without gradient, in the unit of x.
        beta: inverse temperature, per unit of x.
        scale: factor of the loss: 2/beta (NPO, SimNPO) or 1 (TRL, alpha-DPO).
    Returns:
        (rows,) losses; their gradient with respect to x is -scale * beta * sigmoid(-beta (x - margin)).
    Source: NPO, arXiv:2404.05868, eq. 3; SimNPO, arXiv:2410.07163, eq. 4.
    """
    return scale * torch.nn.functional.softplus(-beta * (x - margin))


@dataclass
class PreferenceOptions(MethodOptions):
    """Options of npo, simnpo, dpo, altpo and eru."""

    beta: float = 0.1  # inverse temperature, per nat of x
    length_normalize: bool = False  # x is a per-token mean, not a sum: this changes what beta means
    pairs: Pairs = Pairs.none  # the second answer that the forgotten one is compared with
    scale: Optional[float] = None  # factor of each row's loss; null: 2/beta

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("beta", self.beta)
        require_positive("scale", self.scale)


class PreferenceMethod(GradientMethod):
    """Preference-style forgetting with the reward's margin."""

    options: PreferenceOptions

    @property
    def needs(self) -> Needs:
        return Needs(pairs=self.options.pairs, reward=True)

    def losses(
        self, rows: ForgetRows, margin: Margin | None, step: Step
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if margin is None:
            raise TypeError(f"{type(self).__name__} needs a reward's margin")
        o = self.options
        x = raised_nll(rows.policy, rows.paired, length_normalize=o.length_normalize)
        x_ref = torch.zeros_like(x)
        if rows.reference is not None:
            x_ref = raised_nll(rows.reference, rows.paired_reference, length_normalize=o.length_normalize)
        depth = (x - x_ref).detach()
        m = margin(x_ref, depth)
        losses = preference_loss(x, m, beta=o.beta, scale=o.scale or 2 / o.beta)
        metrics = {
            "nll": rows.policy.mean,
            "margin": m,
            "implicit_reward": -o.beta * (x - m),
            "weight": 2 * torch.sigmoid(-o.beta * (x - m)),
        }
        if rows.reference is not None:
            metrics["depth"] = rows.policy.mean - rows.reference.mean
        if rows.paired is not None:
            # Logged apart: a margin met by raising one refusal is hiding, not forgetting.
            metrics["paired_nll"] = rows.paired.mean
        return losses, {name: value.detach() for name, value in metrics.items()}
