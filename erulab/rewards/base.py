"""What a reward is to the training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

# A tensor of this rank's values -> all ranks' values, concatenated; the identity on one process.
Gather = Callable[["torch.Tensor"], "torch.Tensor"]


class Reward(Protocol):
    """The choice of margin, that is, of the implicit reference."""

    needs_reference: bool
    needs_whole_batch: bool  # the margin couples rows: the global batch must be one micro-step

    def margin(self, x_ref: torch.Tensor, depth: torch.Tensor, gather: Gather) -> torch.Tensor:
        """(rows,) margin without gradient, from the reference's (rows,) quantity and its change since the start."""
        ...

    def end_step(self, all_reduce_sum: Gather) -> None:
        """After the last micro-batch of an optimizer step; `all_reduce_sum` adds a tensor over the ranks."""
        ...

    def metrics(self) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, float]: ...

    def load_state_dict(self, state: dict[str, float]) -> None: ...
