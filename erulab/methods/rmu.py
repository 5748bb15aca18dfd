"""rmu: representation misdirection (Li et al. 2024). Steers the states of forget rows to a random direction.

    L = forget_weight * L_forget + retain_weight * L_retain

    L_forget = mean over the tokens of forget rows of ||h - m u||^2 / width
    L_retain = mean over the tokens of retain rows of ||h - h_ref||^2 / width          retain=states (default)

    h, h_ref   (width,)   output of block `layer` at one token of prompt or response, and the same of the model before
                          unlearning, kept frozen (with LoRA: the model without its adapters)
    u          (width,)   uniform in [0, 1)^width, scaled to length 1: drawn by direction_seed, the same in all steps
    m                     the length steered to: c; with adaptive, c times the median of ||h_ref|| over the row's tokens

Only the output matrices of the MLPs in the blocks layer-2 .. layer are trained. Every other weight stays as it is, bit
for bit. The forward ends at `layer`, so a step costs a fraction of one through the whole model; with `retain=nll` it
runs through the head.

Published settings: zephyr-7b on WMDP layer 7, c 6.5, retain weight 1200, lr 5e-5 (`method=rmu_wmdp`), adaptive c 3
to 5; Llama-3.2-1B on TOFU layer 5 of 16, c 10, lr 2e-5 (`method=rmu_tofu`). The retain weight depends on the size of
the states: 1200 holds the embedded model where it is, so the default is 10. As few weights are trained, learning rates
are two to five times those of npo.

When: hazardous topics rather than single facts, where the model may answer gibberish. It leaves the later blocks, where
facts are read out, untouched, and a short fine-tuning brings the knowledge back (arXiv:2409.18025).

Limits: h = m u gives 0; h = 0 gives m^2 / width; adaptive with ||h_ref|| = 1 at every token is plain rmu.

Adaptive RMU (Huu-Tien et al. 2025) scales u by the mean norm over its batch. That couples rows, and in a short row a
mean is the norm of one token: SmolLM2's first token has 25070 at h_15, where the median is 162. Here it is the median
over the row's own tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab import draws
from erulab.methods.base import GradientMethod, Margin, MethodOptions, block_of, state_after_block
from erulab.methods.needs import ForgetTokens, Needs, Step
from erulab.methods.retain import Normalizer, Retain
from erulab.methods.seen import ForgetRows, Seen
from erulab.methods.states import at_least_float32, squared_distance
from erulab.options import require, require_not_negative, require_positive
from erulab.registry import methods

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")

# Share of the depth at whose end states are steered where `layer` is null: block 7 of 32, as published.
SHARE = 0.25
BLOCKS = 3  # trained, up to and including the one whose output is steered
# The matrix that an MLP, or each expert of a mixture, writes to the residual stream with.
OUTPUT_MATRICES = frozenset({"down_proj", "fc2", "c_proj", "dense_4h_to_h"})


def steering_direction(width: int, seed: int) -> torch.Tensor:
    """Draws u: (width,) float32, uniform in [0, 1)^width and scaled to length 1.

    Source: Li et al. 2024, arXiv:2403.03218, section 4.
    """
    u = torch.rand(width, generator=draws.generator("rmu", seed))
    return u / u.norm()


def steering_loss(states: torch.Tensor, direction: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Returns ||h - length * u||^2 / width of each token.

    Args:
        states: (tokens, width) h.
        direction: (width,) u, of length 1.
        length: (tokens,) the length that the token is steered to.
    Returns:
        (tokens,) losses, in squared units of the states.
    Source: Li et al. 2024, arXiv:2403.03218, eq. 1.
    """
    return squared_distance(states, length[:, None] * direction)


def median_norms(states: torch.Tensor, own_tokens: torch.Tensor) -> torch.Tensor:
    """Returns the (rows,) median over each row's tokens of ||h||.

    Args:
        states: (tokens, width), row after row.
        own_tokens: (rows,) tokens of each row.
    """
    norms = at_least_float32(states).norm(dim=-1)
    return torch.stack([row.median() for row in norms.split(own_tokens.tolist())])


@dataclass
class RMUOptions(MethodOptions):
    name: str = "rmu"
    layer: Optional[int] = None  # block whose output is steered, counted from 0; null: a quarter of the depth
    c: float = 6.5  # length that states are steered to; with adaptive, in units of the row's median state norm
    adaptive: bool = False  # c is relative to the norm of the row's states before unlearning
    direction_seed: int = 0  # draws the direction u; runs that differ in `seed` alone share it
    retain: Retain = Retain.states
    retain_weight: float = 10.0  # factor of the retain term, the paper's alpha: the larger the states, the larger

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative("layer", self.layer)
        require_positive("c", self.c)
        whole = self.forget_tokens is ForgetTokens.all
        require(whole, "forget_tokens", "all: the loss is on the states of whole rows", self.forget_tokens.value)


@methods.register(
    "rmu",
    RMUOptions,
    paper="Li et al. 2024, arXiv:2403.03218; adaptive: Huu-Tien et al. 2025, arXiv:2408.06223",
    needs="retain rows, a frozen copy of the target",
)
class RMU(GradientMethod):
    """Steers the states of forget rows at one layer to a random direction; trains three matrices."""

    options: RMUOptions

    @property
    def needs(self) -> Needs:
        return Needs(normalizer=Normalizer.states, nll=False, states=True, reference_states=self.options.adaptive)

    def layers(self, depth: int) -> tuple[int, ...]:
        return (state_after_block("layer", self.options.layer, depth, SHARE),)

    def trains(self, parameter: str, depth: int) -> bool:
        block, (layer,) = block_of(parameter), self.layers(depth)
        names = parameter.split(".")
        writes = "mlp" in names and not OUTPUT_MATRICES.isdisjoint(names)  # GPT-2's attention has a c_proj too
        return writes and block is not None and layer - BLOCKS <= block < layer

    def losses(
        self, rows: ForgetRows, margin: Margin | None, step: Step
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seen, o = rows.policy, self.options
        assert isinstance(seen, Seen) and seen.state_row is not None
        ((layer, states),) = seen.states.items()
        direction = steering_direction(states.shape[-1], o.direction_seed).to(states.device)
        length = torch.full_like(seen.own_tokens, o.c, dtype=torch.float32)
        if o.adaptive:
            length = o.c * median_norms(rows.reference_states[layer], seen.own_tokens)
        losses = steering_loss(states, direction, length[seen.state_row])
        along = at_least_float32(states.detach()) @ direction.to(losses.dtype)
        metrics = {
            "along_direction": seen.sum_states_by_row(along) / seen.own_tokens,
            "steered_to": length,
        }
        return seen.sum_states_by_row(losses), metrics
