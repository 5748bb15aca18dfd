"""circuit_breaker: representation rerouting (Zou et al. 2024). Turns states of forget rows away from what they were.

    L = a L_forget + b L_retain,    a = forget_weight * (1 - t/2),   b = retain_weight * t/2

    L_forget = mean over the tokens of forget rows, and over layers, of max(0, cos(h, g))
    L_retain = mean over the tokens of retain rows, and over layers, of ||h - h_ref||     retain=states (default)

    t                     share of the training that is done, 0 to 1: the turning comes first, the keeping later
    h, h_ref   (width,)   state h_l of one token of prompt or response, and the same of the model before unlearning,
                          kept frozen (with LoRA: the model without its adapters)
    g          (width,)   h_ref + jitter * ||h_ref|| * e, without gradient
    e          (width,)   a random direction of length 1, drawn by (seed, layer, row id)

Only blocks below the deepest layer are trained, and the forward ends there. L_retain is the distance, not its square:
its gradient has the same length however small the distance is.

The jitter is ours. At the start h = h_ref, where cos(h, h_ref) is 1 and its gradient 0: without it nothing but rounding
errors would start the training. The published code relies on those, and on dropout, which is off here. The jitter must
be well above the rounding of bfloat16, 0.004.

Published settings (7-8B models): LoRA of rank 16 on all linear layers, lr 1e-4, weights 10 and 10, layers 10 and 20 of
32, 150 steps of 16 rows.

When: to stop a model from producing a kind of text, with adapters and in few steps. As with rmu, the knowledge is
turned away from, not removed.

Limits: L_forget is between sqrt(1 - jitter^2) and 1 at the start, and 0 for orthogonal or opposite states; L_retain is
0 at the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import lazy_loader

from erulab import draws
from erulab.methods.base import GradientMethod, Margin, MethodOptions, block_of
from erulab.methods.needs import ForgetTokens, Needs, Step
from erulab.methods.retain import Normalizer, Retain, RetainTerm
from erulab.methods.seen import ForgetRows, RetainRows, Seen
from erulab.methods.states import at_least_float32, checked_layers
from erulab.options import require, require_fraction
from erulab.registry import methods

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


def rerouting_loss(states: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Returns max(0, cos(h, g)) of each token.

    Args:
        states: (tokens, width) h.
        reference: (tokens, width) g, without gradient.
    Returns:
        (tokens,) losses in [0, 1].
    Source: Zou et al. 2024, arXiv:2406.04313, algorithm 1.
    """
    cosine = torch.nn.functional.cosine_similarity(at_least_float32(states), at_least_float32(reference), dim=-1)
    return cosine.relu()


def distance(states: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Returns ||h - h_ref|| of each token; its gradient at 0 is taken to be 0.

    Args:
        states, reference: (tokens, width).
    Returns:
        (tokens,) losses, in units of the states.
    Source: Zou et al. 2024, arXiv:2406.04313, algorithm 1.
    """
    return torch.linalg.vector_norm(at_least_float32(states) - at_least_float32(reference), dim=-1)


def row_directions(row_ids: Sequence[str], width: int, seed: int, layer: int) -> torch.Tensor:
    """Draws the (rows, width) float32 directions e of length 1; each is a function of (seed, layer, row id)."""
    drawn = [torch.randn(width, generator=draws.generator(seed, "circuit_breaker", layer, row)) for row in row_ids]
    return torch.nn.functional.normalize(torch.stack(drawn), dim=-1)


@dataclass
class CircuitBreakerOptions(MethodOptions):
    name: str = "circuit_breaker"
    # layers l of the states h_l, the inputs of blocks l (the depth: of the final norm); null: a third and two thirds
    layers: Optional[list[int]] = None
    jitter: float = 0.1  # length of the random part of what states are turned away from, relative to the state
    forget_weight: float = 10.0  # factor of the loss on forget rows at the start; half of it at the end
    retain: Retain = Retain.states  # term on retain rows; states is the distance here, not its square
    retain_weight: float = 10.0  # twice the factor of that term at the end; it is 0 at the start

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction("jitter", self.jitter)
        whole = self.forget_tokens is ForgetTokens.all
        require(whole, "forget_tokens", "all: the loss is on the states of whole rows", self.forget_tokens.value)


def _distances(rows: RetainRows) -> torch.Tensor:
    pairs = [(states, rows.reference_states[layer]) for layer, states in rows.policy.states.items()]
    return torch.stack([distance(states, reference) for states, reference in pairs]).mean(0)


@methods.register(
    "circuit_breaker",
    CircuitBreakerOptions,
    paper="Zou et al. 2024, arXiv:2406.04313",
    needs="retain rows, a frozen copy of the target",
)
class CircuitBreaker(GradientMethod):
    """Turns the states of forget rows away from what they were, at two layers; keeps those of retain rows."""

    options: CircuitBreakerOptions

    @property
    def needs(self) -> Needs:
        return Needs(normalizer=Normalizer.states, nll=False, states=True, reference_states=True)

    @property
    def retain_terms(self) -> tuple[RetainTerm, ...]:
        if self.options.retain is Retain.states:
            return (RetainTerm("states", _distances, Normalizer.states, states=True),)
        return super().retain_terms

    def layers(self, depth: int) -> tuple[int, ...]:
        thirds = [max(1, depth // 3), max(1, 2 * depth // 3)]
        return checked_layers(thirds if self.options.layers is None else self.options.layers, depth)

    def trains(self, parameter: str, depth: int) -> bool:
        block = block_of(parameter)
        return block is not None and block < max(self.layers(depth))

    def weights(self, step: Step) -> tuple[float, float]:
        half = step.share / 2
        return self.options.forget_weight * (1 - half), self.options.retain_weight * half

    def losses(
        self, rows: ForgetRows, margin: Margin | None, step: Step
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seen = rows.policy
        assert isinstance(seen, Seen) and seen.state_row is not None
        losses, cosines = [], []
        for layer, states in seen.states.items():
            reference = at_least_float32(rows.reference_states[layer])
            directions = row_directions(rows.ids, states.shape[-1], self.seed, layer).to(reference)
            size = self.options.jitter * reference.norm(dim=-1, keepdim=True)
            losses.append(rerouting_loss(states, reference + size * directions[seen.state_row]))
            cosines.append(torch.nn.functional.cosine_similarity(at_least_float32(states.detach()), reference, dim=-1))
        total = seen.sum_states_by_row(torch.stack(losses).mean(0))
        return total, {"cosine": seen.sum_states_by_row(torch.stack(cosines).mean(0)) / seen.own_tokens}
