"""Memorisation of a text, computed from whether each true token is also the model's most probable one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def extraction_strength(matches: NDArray[np.bool_]) -> float:
    """Returns 1 - k/T, where k is the least number of leading tokens from which the rest follows greedily.

    Args:
        matches: (tokens,) whether the true token is the most probable one after the true tokens before it. While the
            greedy token is the true one, both continue in the same way; so k is the position of the last mismatch.
    Returns:
        A number in [0, 1]: 1 if the whole text follows from its prompt, 0 if not even its last token follows.
    Raises:
        ValueError: there are no tokens.
    Source: open-unlearning. It tries k < T only, so a text whose last token does not follow has 1/T there. It also
        leaves out the end-of-turn token, which the caller does here.
    """
    _require_tokens(matches)
    wrong = np.flatnonzero(~matches)
    return 1.0 - (int(wrong[-1]) + 1) / len(matches) if len(wrong) else 1.0


def exact_memorisation(matches: NDArray[np.bool_]) -> float:
    """Returns the share of true tokens that are the model's most probable token.

    Args:
        matches: as in `extraction_strength`.
    Raises:
        ValueError: there are no tokens.
    Source: open-unlearning's exact_memorization, which leaves out the end-of-turn token too.
    """
    _require_tokens(matches)
    return float(np.mean(matches))


def _require_tokens(matches: NDArray[np.bool_]) -> None:
    if len(matches) == 0:
        raise ValueError("memorisation is undefined for a text without tokens")
