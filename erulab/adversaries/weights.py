"""The interface of an adversary in weight space: the forget loss is taken where the adversary moves the weights to.

    L_forget(theta)  becomes  L_forget(theta + epsilon),   epsilon without gradient

The retain loss is taken at theta. The weights are restored exactly, bit for bit, before the step's update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import lazy_loader

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


def _nothing_to_relearn(number: int) -> list[torch.Tensor]:
    raise TypeError("this adversary did not ask for rows to relearn: set WeightAdversary.relearns")


@dataclass(frozen=True)
class WeightSpace:
    """The trained weights, and the forget gradient at the place where they are."""

    parameters: Sequence[torch.nn.Parameter]
    # -> one float32 tensor per weight: the gradient of forget_weight * L_forget, over the global batch
    forget_gradient: Callable[[], list[torch.Tensor]]
    # number k -> likewise: the gradient of the mean token NLL of the k-th batch of relearned rows. They are forget rows
    # about other facts than the step's, where there are any; only for an adversary that `relearns`.
    relearn_gradient: Callable[[int], list[torch.Tensor]] = _nothing_to_relearn

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Opens a context after which the weights are, bit for bit, what they were before it."""
        before = [p.detach().clone() for p in self.parameters]
        try:
            yield
        finally:
            # Copied back, not subtracted: theta + epsilon - epsilon is not theta in floating point.
            with torch.no_grad():
                for p, kept in zip(self.parameters, before, strict=True):
                    p.copy_(kept)


@runtime_checkable
class WeightAdversary(Protocol):
    """An adversary that moves weights, not states."""

    relearns: bool  # whether it reads `WeightSpace.relearn_gradient`
    moves: bool  # False: its options leave the weights where they are, and the step is the plain one

    def forget_gradient(self, space: WeightSpace, step: int) -> list[torch.Tensor]:
        """Returns the forget gradient of a step, taken at weights of the adversary's choice; restores the weights.

        Args:
            space: the trained weights.
            step: optimizer step, for draws.
        Returns:
            One float32 tensor per weight, equal on all ranks.
        """
        ...
