"""Figures that combine other figures, for single values and for resampled ones alike. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Figure = TypeVar("Figure", float, NDArray[np.float64])


def combined_harmonic_mean(components: Sequence[Figure]) -> Figure:
    """Returns the harmonic mean, elementwise; 0 where a component is 0 or less, NaN where one is undefined.

    Args:
        components: at least one number, or arrays (resamples,).
    """
    values = np.stack([np.asarray(component, dtype=np.float64) for component in components])
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where((values <= 0).any(0), 0.0, len(values) / (1 / values).sum(0))
    result = np.where(np.isnan(values).any(0), np.nan, mean)
    return result if result.ndim else float(result)  # type: ignore[return-value]
