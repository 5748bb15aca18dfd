"""How much of a text a model has by heart, from whether each true token is also the model's own choice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def extraction_strength(matches: NDArray[np.bool_]) -> float:
    """1 - k/T, k the fewest leading tokens that must be given for the rest to follow greedily.

    Args:
        matches: (tokens,) whether the true token has the highest probability after the true tokens before it. As long
            as the greedy token is the true one, both continue alike, so the rest follows from the last mismatch on.
    Returns:
        1 if the whole text follows from its prompt, 0 if not even its last token does.
    Raises:
        ValueError: no tokens.
    Source: open-unlearning. It tries k < T only, so that a text without its last token has 1/T there; and it leaves
        the end-of-turn token out, which is for the caller to do.
    """
    _check(matches)
    wrong = np.flatnonzero(~matches)
    return 1.0 - (int(wrong[-1]) + 1) / len(matches) if len(wrong) else 1.0


def exact_memorisation(matches: NDArray[np.bool_]) -> float:
    """The share of tokens that are the model's own choice.

    Args:
        matches: as for `extraction_strength`.
    Raises:
        ValueError: no tokens.
    Source: open-unlearning's exact_memorization, there too without the end-of-turn token.
    """
    _check(matches)
    return float(np.mean(matches))


def _check(matches: NDArray[np.bool_]) -> None:
    if len(matches) == 0:
        raise ValueError("a text without tokens has no share of them")
