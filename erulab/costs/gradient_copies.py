"""Copies of gradients and weights that a step holds which takes the gradients of forget and retain rows apart.

They follow erulab/training/separate_gradients.py and combine.py. A list is one float32 number per trained weight.
"""

from __future__ import annotations

from dataclasses import dataclass

# Inner products are taken in float64, one weight after another: both factors and their product.
INNER_PRODUCT = 24


@dataclass(frozen=True)
class GradientCopies:
    """What is held beside weights, optimizer state, activations and the gradient of one backward."""

    lists: int  # during forwards and backwards: the sum over micro-batches, and gradients that were taken before
    weights: int = 0  # copies of the trained weights, to be restored after an adversary moved them
    average: int = 0  # lists that stay between steps: gru's moving average
    multiplied: int = 0  # lists while inner products are taken
    combining: int = 1  # lists when the two gradients have become one
    closing: int = 1  # lists while the engine is handed the combined gradient

    @classmethod
    def of_forget_rows(cls, rule: str, lists: int, weights: int) -> GradientCopies:
        """Returns the copies while forget rows run.

        Args:
            rule: a value of `trainer.combine`.
            lists: the sum over micro-batches and what an adversary holds beside it.
            weights: copies of the weights that an adversary holds.
        """
        return cls(lists, weights, average=int(rule == "gru"))

    @classmethod
    def of_retain_rows(cls, rule: str) -> GradientCopies:
        """Returns the copies while retain rows run, and at the end of the step; `rule`: as for forget rows."""
        return cls(
            2,
            average=int(rule == "gru"),
            multiplied=0 if rule == "sum" else 2,
            combining=4 if rule in ("pcgrad", "gru") else 3,
            closing=3,
        )

    def steady(self, entries: float) -> float:
        """Returns the bytes that stay between steps; `entries`: trained weights."""
        return 4 * self.average * entries

    def beside_forwards(self, entries: float, weight: int) -> float:
        """Returns the bytes during forwards and backwards, beside `steady`; `weight`: bytes of a trained weight."""
        return (4 * self.lists + weight * self.weights) * entries

    def after_forwards(self, entries: float, weight: int, largest: float, gradients: float) -> float:
        """Returns the most bytes after the last backward of these rows, beside `steady`.

        Args:
            entries: trained weights.
            weight: bytes of a trained weight, and of its gradient.
            largest: entries of the largest trained weight.
            gradients: bytes of the engine's gradients.
        """
        # A copy of the sum is added up over processes while the gradient of the last micro-batch is still there.
        summing = self.beside_forwards(entries, weight) + (4 + weight) * entries
        multiplying = 4 * self.multiplied * entries + INNER_PRODUCT * largest if self.multiplied else 0.0
        return max(summing, multiplying, 4 * self.combining * entries, 4 * self.closing * entries + gradients)
