"""The interface of a reward: the margin m in a preference-style loss, scale * softplus(-beta (x - m)).

x is the NLL that the method raises (s or l of methods/base.py, or its difference to the paired answer's), x_ref the
same under the model before unlearning, and depth = x - x_ref what has been forgotten so far: 0 at the start. The choice
of m is a choice of the implicit reference that the policy is compared with:

    reference         m = gamma + x_ref                                  fixed model p_ref: NPO, DPO
    reference_free    m = gamma                                          uniform model: SimNPO
    elastic           m = gamma + lambda_ref * x_ref + alpha * Z(depth)  a reference that moves with the row: ERU

beta * (m - x) is the implicit reward that is logged, and 2 sigmoid(-beta (x - m)) the row's weight in the gradient.
README.md of this folder has what follows from the formulas, and their sources.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

# A tensor of this rank's values -> all ranks' values, concatenated; the identity on one process.
Gather = Callable[["torch.Tensor"], "torch.Tensor"]


class Reward(Protocol):
    """The margin of a preference-style loss, with the statistics it keeps from step to step."""

    needs_reference: bool  # whether m depends on x_ref or depth; otherwise no reference value is computed
    needs_whole_batch: bool  # whether m couples the rows of a step: the global batch must then be one micro-step

    def margin(self, x_ref: torch.Tensor, depth: torch.Tensor, gather: Gather) -> torch.Tensor:
        """Computes m for the rows of one micro-batch.

        Args:
            x_ref: (rows,) the method's quantity under the reference, in nats or nats per token.
            depth: (rows,) x - x_ref in the same unit, without gradient.
            gather: concatenates the values of all ranks.
        Returns:
            (rows,) margin in the unit of x_ref, without gradient.
        """
        ...

    def end_step(self, all_reduce_sum: Gather) -> None:
        """Updates statistics after the last micro-batch of an optimizer step.

        Args:
            all_reduce_sum: adds a tensor over the ranks.
        """
        ...

    def metrics(self) -> dict[str, float]:
        """Returns the quantities to log after a step."""
        ...

    def state_dict(self) -> dict[str, float]:
        """Returns the statistics that a resumed training needs."""
        ...

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restores what `state_dict` returned."""
        ...
