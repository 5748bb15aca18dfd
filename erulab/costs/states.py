"""Bytes of an optimizer's state in closed form."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from erulab.options import OptimizerName

# bitsandbytes' constants: weights that share a scale, and the size below which a parameter's moments stay in float32.
BLOCK_8_BITS = 256
SMALLEST_8_BITS = 4096


@dataclass(frozen=True)
class TrainedMatrix:
    """A kind of trained matrix."""

    count: int  # how many the model has
    rows: int
    columns: int
    stacked: int = 1  # matrices of these sizes in one parameter: those of experts

    @property
    def weights(self) -> int:
        """Returns the entries of one parameter."""
        return self.stacked * self.rows * self.columns


def trained_matrices(shapes: Iterable[tuple[int, ...]]) -> list[TrainedMatrix]:
    """Lists the matrices among the trained weights; `shapes`: of all trained weights."""
    counted = Counter(shape for shape in shapes if len(shape) > 1)
    return [
        TrainedMatrix(count, rows, columns, math.prod(stacked)) for (*stacked, rows, columns), count in counted.items()
    ]


def state_bytes(optimizer: OptimizerName, matrices: Sequence[TrainedMatrix], trained: int) -> float:
    """Returns the bytes that an optimizer keeps from one step to the next, without master weights.

    Args:
        matrices: those that are trained.
        trained: all trained parameters; those outside the matrices are in vectors of fewer than 4096 numbers.
    """
    vectors = trained - sum(matrix.count * matrix.weights for matrix in matrices)
    if optimizer is OptimizerName.sgd:
        return 0.0
    if optimizer is OptimizerName.adamw:
        return 8.0 * trained  # two moments in float32
    if optimizer is OptimizerName.adafactor:
        lines = sum(matrix.count * matrix.stacked * (matrix.rows + matrix.columns) for matrix in matrices)
        return 4.0 * (vectors + lines)
    return 8.0 * vectors + sum(matrix.count * _moments_in_8_bits(matrix.weights) for matrix in matrices)


def update_bytes(optimizer: OptimizerName, matrices: Sequence[TrainedMatrix]) -> float:
    """Returns the bytes that an optimizer takes for the update of one parameter and gives back.

    Adafactor squares the gradient of one matrix in two steps, and still holds the update of the matrix before it.
    """
    if optimizer is not OptimizerName.adafactor:
        return 0.0
    # Matrices of one kind follow one another only where no other kind is trained.
    kinds = sorted((matrix.weights for matrix in matrices), reverse=True)
    largest, before, *_ = kinds if len(kinds) > 1 else (kinds * 2 if matrices[0].count > 1 else [*kinds, 0])
    return 8.0 * largest + 4.0 * before


def _moments_in_8_bits(weights: int) -> float:
    """Returns the bytes of both moments of one matrix: a byte per weight, and a float32 scale per block."""
    if weights < SMALLEST_8_BITS:
        return 8.0 * weights
    return 2.0 * (weights + 4 * -(-weights // BLOCK_8_BITS))
