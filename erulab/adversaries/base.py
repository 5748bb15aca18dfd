"""What an adversary is to the training loop."""

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
        """The input of blocks[l] is h_l."""
        ...

    @property
    def norm(self) -> nn.Module:
        """Its input is h_L."""
        ...

    def row_nll(self, batch: Batch) -> torch.Tensor: ...

    def hidden(self, batch: Batch) -> torch.Tensor: ...

    def skip_blocks_below(self, layer: int) -> AbstractContextManager[None]:
        """Forwards inside run no block below `layer`: whoever edits h_layer puts there what those would give."""
        ...

    def state_gradient(self, loss: torch.Tensor, states: torch.Tensor, layer: int) -> torch.Tensor:
        """The gradient of `loss` with respect to what was added to h_layer; parameters keep theirs, untouched."""
        ...

    def unpack_states(self, states: torch.Tensor) -> torch.Tensor:
        """States inside the latest forward as (rows, length, width), however the rows were laid out for it."""
        ...

    def pack_states(self, rows: torch.Tensor) -> torch.Tensor:
        """The inverse of `unpack_states`."""
        ...


# (part, n, step) -> a batch of n rows of "forget" or "retain", drawn by (seed, step): the same on every rank.
Draw = Callable[[str, int, int], "Batch"]


class Adversary(Protocol):
    """A perturbation of latent states that tries to bring the forgotten answer back while the policy forgets it."""

    p: float  # share of forget rows that are perturbed; 0: never
    seed: int  # of every draw; 0 when built, set by the training loop before the first `prepare`
    # Whether two rows with the same first tokens get the same perturbation there: their common opening may then be
    # computed once.
    perturbs_equal_openings_equally: bool

    def prepare(self, step: int, total_steps: int, policy: HookablePolicy, draw: Draw) -> None:
        """Once an optimizer step, before its first micro-batch, without gradient."""
        ...

    def attach(
        self, policy: HookablePolicy, forget: Batch, perturbed_as_forget_row: torch.Tensor, step: int
    ) -> AbstractContextManager[None]:
        """Perturbs one micro-batch's forward; stays open until backward has ended (checkpointing re-runs hooks).

        Args:
            forget: the forget rows (prompt and true response) of the micro-batch. An adversary that optimises
                lowers THEIR NLL, also where the forward runs on refusals: both answers of a pair share the delta.
            perturbed_as_forget_row: (rows of the forward,) int64 index of the forget row whose perturbation each row
                gets; -1: left alone (retain rows, and rows outside the Bernoulli(p) mask).
            step: optimizer step; draws are functions of (seed, step, row id).
        """
        ...

    def metrics(self) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, torch.Tensor]: ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None: ...


class Memoryless:
    """Base of adversaries that prepare nothing, log nothing and carry nothing from step to step."""

    perturbs_equal_openings_equally = False

    def prepare(self, step: int, total_steps: int, policy: HookablePolicy, draw: Draw) -> None:
        """Nothing to prepare."""

    def metrics(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Nothing to restore."""
