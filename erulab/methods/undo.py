"""undo: unlearn, noise, distil on outputs (Lee et al. 2025). Rebuilds an unlearned model from damaged weights.

    theta_1  weights after unlearning by another method, `first`
    theta_2  = (1 - alpha) theta_1 + alpha beta n       for each matrix;   n ~ N(0, 2 / (rows + columns))
    theta_3  after training theta_2 on  sum over tokens of KL(p_1 || p) / sum of T  over the responses of retain rows

p_1 is the distribution of the unlearned model theta_1, kept frozen. What the first method left in the weights without
showing it is damaged by the mixing, and the distillation brings back only what the outputs show. n has the variance of
Xavier's initial values, drawn by (seed, name of the matrix); norms and biases are not mixed [design]. With alpha 0 and
`distil_steps=0` the result is the first method's model, bit for bit. Reward, adversary and the options of `trainer` are
the first method's; the distillation takes the trainer's too, `distil_lr` and `distil_steps` aside.

Published: alpha 0.25 as a fair exchange of robustness against costs, learning rate 2e-5, distillation on pretraining
texts too; here on retain rows alone, which is what a data set names.
When to use it: where relearning must be slow and a second training can be paid. What it costs: the first method, then
forwards of two models and one backward per step of distillation, which has to be long (alpha near 1 is a training from
scratch). The first method's model is a product of its own, so sweeps over alpha and beta train it once. Limit: what no
retain row asks for is lost with the mixing, since nothing distils it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

import lazy_loader

from erulab import draws
from erulab.errors import ConfigError
from erulab.methods.base import FollowUp, StandIn, UnlearningLab
from erulab.options import require_fraction, require_not_negative, require_positive
from erulab.registry import methods
from erulab.typed import did_you_mean, fill

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
else:
    torch = lazy_loader.load("torch")


def noised(weight: torch.Tensor, *, alpha: float, beta: float, seed: int, name: str) -> torch.Tensor:
    """Returns `(1 - alpha) weight + alpha beta n` for a matrix, and a weight that is none as it is.

    Args:
        weight: (rows, columns), or (experts, rows, columns) of a mixture, on the CPU.
        alpha: share of the noise; 0 leaves the weight as it is.
        beta: scale of the noise; 1 is that of Xavier's initial values.
        seed, name: the noise n is a function of them; its variance is 2 / (rows + columns).
    Returns:
        The new weight, in the dtype of `weight`.
    Source: Lee et al. 2025, arXiv:2506.06278.
    """
    # Not every weight with three axes: that of a convolution is no matrix.
    of_experts = weight.dim() == 3 and "experts" in name.split(".")
    if alpha == 0 or not (weight.dim() == 2 or of_experts):
        return weight
    deviation = (2 / sum(weight.shape[-2:])) ** 0.5
    noise = torch.randn(weight.shape, generator=draws.generator(seed, "undo", name)) * deviation
    return (1 - alpha) * weight + alpha * beta * noise.to(weight.dtype)


def _edit(name: str, weights: Sequence[torch.Tensor], *, alpha: float, beta: float, seed: int) -> torch.Tensor:
    return noised(weights[0], alpha=alpha, beta=beta, seed=seed, name=name)


@dataclass
class UndoOptions:
    name: str = "undo"
    # the method whose model is rebuilt, with all its options: method@method.first=NAME method.first.KEY=VALUE
    first: Any = field(default_factory=lambda: {"name": "npo"})
    alpha: float = 0.25  # share of the noise in the mixed weights, 0 to 1
    beta: float = 0.1  # scale of the noise; 1 is that of initial values
    distil_lr: Optional[float] = None  # learning rate of the distillation; null: trainer.lr
    distil_steps: Optional[int] = None  # its steps, of trainer.global_batch retain rows; null: as many as the first's

    def __post_init__(self) -> None:
        require_fraction("alpha", self.alpha)
        require_not_negative("beta", self.beta)
        require_positive("distil_lr", self.distil_lr)
        require_not_negative("distil_steps", self.distil_steps)
        if isinstance(self.first, dict):
            self.first = _first_options(self.first)


def _first_options(values: dict[str, Any]) -> Any:
    """Returns the options of the first method, typed and checked.

    Raises:
        ConfigError: there is no such method, it makes no model to go on from, or a value is not allowed.
    """
    name = str(values.get("name"))
    if name not in methods:
        raise ConfigError(
            f"method.first.name={name}: no such method{did_you_mean(name, methods.names())}; type "
            "method@method.first=npo"
        )
    options = fill(methods[name].options, values, "method.first") if name != "undo" else None
    if options is None or isinstance(methods.build(options), StandIn | FollowUp):
        raise ConfigError(f"method.first={name} trains no model to go on from; type method@method.first=npo")
    return options


@methods.register(
    "undo",
    UndoOptions,
    paper="Lee et al. 2025, arXiv:2506.06278",
    needs="a first method and what it needs, retain rows",
)
class Undo:
    """Damages the weights of an unlearned model and distils its outputs on retain rows back into them."""

    def __init__(self, options: UndoOptions) -> None:
        self.options = options
        self.first = options.first
        self.retain_steps = options.distil_steps

    def unlearn(self, lab: UnlearningLab) -> None:
        o = self.options
        unlearned = lab.unlearned_by(o.first)
        lab.write([unlearned], partial(_edit, alpha=o.alpha, beta=o.beta, seed=lab.seed))
        if o.distil_steps != 0:
            lab.distil(unlearned, lr=o.distil_lr, steps=o.distil_steps)
