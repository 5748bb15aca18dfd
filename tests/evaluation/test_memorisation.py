"""Memorisation figures against their definitions, computed token by token."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from erulab.evaluation.memorisation import exact_memorisation, extraction_strength


def fewest_given(matches: tuple[bool, ...]) -> int:
    """Returns the smallest k from which on all tokens are greedy; T if not even the last token is."""
    return next(k for k in range(len(matches) + 1) if all(matches[k:]))


def test_every_pattern_of_up_to_six_tokens() -> None:
    for tokens in range(1, 7):
        for matches in product((False, True), repeat=tokens):
            found = extraction_strength(np.array(matches))
            assert found == pytest.approx(1 - fewest_given(matches) / tokens)
            assert exact_memorisation(np.array(matches)) == pytest.approx(sum(matches) / tokens)


def test_ends_of_the_scale() -> None:
    assert extraction_strength(np.array([True] * 4)) == 1.0
    # What is known by heart up to the last token cannot be extracted to the end.
    assert extraction_strength(np.array([True, True, True, False])) == 0.0
    assert exact_memorisation(np.array([True, True, True, False])) == 0.75
    with pytest.raises(ValueError, match="without tokens"):
        extraction_strength(np.zeros(0, dtype=bool))
    with pytest.raises(ValueError, match="without tokens"):
        exact_memorisation(np.zeros(0, dtype=bool))
