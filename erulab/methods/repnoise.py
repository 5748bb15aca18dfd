"""repnoise: representation noising (Rosati et al. 2024). Makes the states of forget rows look like Gaussian noise.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = mean over forget rows of [ beta * mean over layers of MMD^2(states of the row, noise)
                                          - alpha * log(1 + mean over layers and the output of l) ]
    L_retain = sum over retain rows of s / sum over retain rows of T                       retain=nll (default)

    l          NLL per token of the row's response as the final norm and the head read it off a layer's states; at the
               output it is the model's own
    MMD^2(X, Y), X and Y of n tokens each
             = sum over i != j of [k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j)] / (n (n - 1))
    k(x, y)  = sum over f in 1/4, 1/2, 1, 2, 4 of exp(-||x - y||^2 / (f b))
    b          median of ||x - y||^2 over all pairs of vectors in X and Y
    X          states h_l of the tokens of prompt and response
    Y          n draws of N(0, I), by (seed, step, row id); the same for all layers

All layers are trained. The head runs once per layer more than in gd, and the kernels take n^2 width operations per row
and layer.

Published settings (7B models): lr 2e-5, alpha 0.3 to 0.5 (its code has 1), beta 0.001, all layers. The authors call a
grid search necessary.

When: as a guard against later fine-tuning on the forgotten topic; it is sensitive to its weights, so search them.

Limits: MMD^2 is 0 for X = Y, and its mean is 0 where both are drawn from one distribution (unbiased, for a given b). A
row of one token has no pairs, and MMD^2 0. The ascent's gradient with respect to the mean NLL is -alpha / (1 + NLL).

The published code compares states across the rows of its batch, which couples rows; here each row's tokens are
compared. Its logarithm is of 1 + the mean, as here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab import draws
from erulab.methods.base import GradientMethod, Margin, MethodOptions
from erulab.methods.needs import Needs, Step
from erulab.methods.seen import ForgetRows, Seen
from erulab.methods.states import at_least_float32, checked_layers
from erulab.options import require_not_negative
from erulab.registry import methods

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # bandwidths of the kernels, relative to b


def squared_mmd(x: torch.Tensor, y: torch.Tensor, bandwidth: torch.Tensor | None = None) -> torch.Tensor:
    """Estimates the squared maximum mean discrepancy of the distributions that two samples are drawn from.

    Args:
        x, y: (n, width) samples of equal size.
        bandwidth: () b, without gradient; None: the median squared distance between two vectors of both samples.
    Returns:
        () MMD^2, which may be negative; 0 for n = 1.
    Source: Gretton et al. 2012, eq. 4 (unbiased, for a bandwidth that does not depend on the samples).
    """
    n = len(x)
    if n < 2:
        return (x * 0).sum()
    both = torch.cat([x, y])
    squares = both.square().sum(-1)
    distances = (squares[:, None] + squares - 2 * both @ both.T).clamp(min=0)
    if bandwidth is None:
        pairs = torch.triu_indices(2 * n, 2 * n, 1, device=x.device)
        bandwidth = distances.detach()[pairs[0], pairs[1]].median().clamp(min=torch.finfo(x.dtype).tiny)
    k = sum((-distances / (factor * bandwidth)).exp() for factor in FACTORS)
    assert isinstance(k, torch.Tensor)
    crossed = k[:n, n:]
    of_pairs = k[:n, :n] + k[n:, n:] - crossed - crossed.T
    return (of_pairs.sum() - of_pairs.diagonal().sum()) / (n * (n - 1))


def ascent_loss(nll: torch.Tensor) -> torch.Tensor:
    """Returns -log(1 + nll), whose descent raises the NLL, the slower the higher it is.

    Args:
        nll: (rows,) nats per token, averaged over layers.
    Returns:
        (rows,) losses.
    Source: Rosati et al. 2024, arXiv:2405.14577, and its public code.
    """
    return -torch.log1p(nll)


def row_noise(row_ids: Sequence[str], tokens: Sequence[int], width: int, seed: int, step: int) -> list[torch.Tensor]:
    """Draws (tokens, width) float32 standard normal numbers for each row, by (seed, step, row id)."""
    return [
        torch.randn(n, width, generator=draws.generator(seed, "repnoise", step, row))
        for row, n in zip(row_ids, tokens, strict=True)
    ]


@dataclass
class RepNoiseOptions(MethodOptions):
    name: str = "repnoise"
    # layers l of the states h_l, the inputs of blocks l; null: a quarter, a half and three quarters of the depth
    layers: Optional[list[int]] = None
    alpha: float = 0.5  # factor of the ascent on the NLL
    beta: float = 0.001  # factor of the distance to noise

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative("alpha", self.alpha)
        require_not_negative("beta", self.beta)


@methods.register("repnoise", RepNoiseOptions, paper="Rosati et al. 2024, arXiv:2405.14577", needs="retain rows")
class RepNoise(GradientMethod):
    """Moves the states of forget rows towards Gaussian noise, with ascent at every layer and retain NLL."""

    options: RepNoiseOptions

    @property
    def needs(self) -> Needs:
        return Needs(states=True, lens=True)

    def layers(self, depth: int) -> tuple[int, ...]:
        quarters = [max(1, round(depth * quarter / 4)) for quarter in (1, 2, 3)]
        return checked_layers(quarters if self.options.layers is None else self.options.layers, depth)

    def losses(
        self, rows: ForgetRows, margin: Margin | None, step: Step
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seen, o = rows.policy, self.options
        assert isinstance(seen, Seen)
        read = [seen.mean_by_row(nll) for nll in seen.lens_nll.values()]
        nll = torch.stack([*read, seen.mean]).mean(0)
        mmd = self._distance_to_noise(seen, rows.ids, step)
        metrics = {"nll": seen.mean, "lens_nll": torch.stack(read).mean(0), "mmd": mmd}
        losses = o.beta * mmd + o.alpha * ascent_loss(nll)
        return losses, {name: value.detach() for name, value in metrics.items()}

    def _distance_to_noise(self, seen: Seen, row_ids: Sequence[str], step: Step) -> torch.Tensor:
        """Returns the (rows,) mean over the layers of MMD^2 between the row's states and noise."""
        tokens = seen.own_tokens.tolist()
        width = next(iter(seen.states.values())).shape[-1]
        noise = row_noise(row_ids, tokens, width, self.seed, step.number)
        found = []
        for states in seen.states.values():
            of_rows = at_least_float32(states).split(tokens)
            found.append(torch.stack([squared_mmd(x, y.to(x)) for x, y in zip(of_rows, noise, strict=True)]))
        return torch.stack(found).mean(0)
