"""The interface of an adversary: a perturbation of hidden states during the forget forward.

With an adversary, L_forget of a method (methods/base.py) becomes

    L_forget = mean over forget rows of (1 - p) loss(h) + p loss(h + delta)

where p is the share of forget rows that are perturbed in a step, drawn by (seed, step, row id), and delta is meant to
bring the forgotten answer back: it lowers NLL(answer | h + delta), whatever the method's loss. Retain rows and
reference values are never perturbed. Layers: h_l is the input of block l, h_L that of the final norm.
README.md of this folder has the formulas and their sources.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from erulab.tokens.batch import Batch


class HookablePolicy(Protocol):
    """The part of `models.policy.Policy` that adversaries use."""

    @property
    def blocks(self) -> nn.ModuleList:
        """Returns the blocks; the input of blocks[l] is h_l."""
        ...

    @property
    def norm(self) -> nn.Module:
        """Returns the final norm; its input is h_L."""
        ...

    def row_nll(self, batch: Batch) -> torch.Tensor:
        """Returns (rows,) sequence NLL of the responses, nats."""
        ...

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Returns (supervised positions, width) final hidden states."""
        ...

    def skip_blocks_below(self, layer: int) -> AbstractContextManager[None]:
        """Skips blocks 0..layer-1. The caller must replace h_layer by a hook, for example with its cached value."""
        ...

    def state_gradient(self, loss: torch.Tensor, states: torch.Tensor, layer: int) -> torch.Tensor:
        """Returns the gradient of `loss` with respect to `states`; gradients of parameters are left as they are.

        Args:
            loss: scalar, from a forward in which `states` was added to h_layer.
            states: (rows, length, width) that require a gradient.
            layer: the block whose input they were added to.
        """
        ...

    def unpack_states(self, states: torch.Tensor) -> torch.Tensor:
        """Returns states inside the latest forward as (rows, length, width), whatever its layout of the rows."""
        ...

    def pack_states(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns (rows, length, width) states in the layout of the latest forward: the inverse of `unpack_states`."""
        ...


# (part, n, step) -> a batch of n rows of part "forget" or "retain", drawn by (seed, step): the same on every rank.
DrawPrompts = Callable[[str, int, int], "Batch"]


class Adversary(Protocol):
    """A perturbation of latent states that tries to bring the forgotten answer back while the policy forgets it."""

    p: float  # share of forget rows that are perturbed; 0: never
    seed: int  # of every draw; 0 when built, set by the training loop before the first `prepare`
    # Whether two rows with the same first tokens get the same perturbation there: their common opening may then be
    # computed once.
    perturbs_equal_openings_equally: bool

    def prepare(self, step: int, total_steps: int, policy: HookablePolicy, draw: DrawPrompts) -> None:
        """Updates what depends on the policy, once per optimizer step before its first micro-batch, without gradient.

        Args:
            step: optimizer step from 0, of `total_steps`.
            draw: draws prompts to estimate from.
        """
        ...

    def attach(
        self, policy: HookablePolicy, forget: Batch, perturbed_as_forget_row: torch.Tensor, step: int
    ) -> AbstractContextManager[None]:
        """Perturbs the forward of one micro-batch; stays open until its backward has ended.

        Under gradient checkpointing the backward runs the hooked blocks again, so the hooks must still be there.

        Args:
            forget: the forget rows (prompt and true response) of the micro-batch. An adversary that optimises
                lowers THEIR NLL, also where the forward runs on refusals: both answers of a pair get the same delta.
            perturbed_as_forget_row: (rows of the forward,) int64 index of the forget row whose perturbation each row
                gets; -1: left alone (retain rows, and rows outside the Bernoulli(p) mask).
            step: optimizer step; draws are functions of (seed, step, row id).
        """
        ...

    def metrics(self) -> dict[str, float]:
        """Returns the quantities to log after a step."""
        ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Returns what a resumed training needs."""
        ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restores what `state_dict` returned."""
        ...


class StatelessAdversary:
    """Base of adversaries that keep no state from step to step, prepare nothing and log nothing."""

    perturbs_equal_openings_equally = False

    def prepare(self, step: int, total_steps: int, policy: HookablePolicy, draw: DrawPrompts) -> None:
        """Does nothing: there is nothing to prepare."""

    def metrics(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Does nothing: there is no state."""
