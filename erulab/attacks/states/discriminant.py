"""Linear discriminant analysis in closed form: which of a few values a hidden state represents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Array = NDArray[np.float64]


def rotate_to_span(states: Array) -> Array:
    """Expresses the states in as few coordinates as they span; all inner products stay the same.

    Args:
        states: (rows, width).
    Returns:
        (rows, min(rows, width)).
    """
    rows, width = states.shape
    return states if width <= rows else np.ascontiguousarray(linalg.qr(states.T, mode="r", pivoting=False)[0][:rows].T)


def log_posterior(train: Array, labels: NDArray[np.int64], classes: int, states: Array, shrinkage: float) -> Array:
    """Returns the log-posterior of each class at each state, up to a constant per state.

    Classes are normal with a common covariance: S, the mean square within classes, shrunk to
    `(1 - shrinkage) S + shrinkage tr(S) / width I`. A class without rows has the mean of all rows, and counts as one.

    Args:
        train: (rows, width) states to learn from.
        labels: (rows,) their classes, in 0 .. classes - 1.
        classes: number of classes.
        states: (n, width) states to read.
        shrinkage: in (0, 1].
    Returns:
        (n, classes).
    Source: Fisher's discriminant; shrinkage of the covariance as in Friedman 1989.
    """
    centre = train.mean(0)
    train, states = train - centre, states - centre
    counts = np.bincount(labels, minlength=classes)
    means = np.zeros((classes, train.shape[1]))
    np.add.at(means, labels, train)
    means /= np.maximum(counts, 1)[:, None]
    within = train - means[labels]
    covariance = within.T @ within / len(train)
    spread = max(float(np.trace(covariance)) / len(covariance), np.finfo(np.float64).tiny)
    covariance = (1 - shrinkage) * covariance + shrinkage * spread * np.eye(len(covariance))
    weights = linalg.solve(covariance, means.T, assume_a="pos")
    constant = np.log(np.maximum(counts, 1)) - 0.5 * (means.T * weights).sum(0)
    result: Array = states @ weights + constant
    return result
