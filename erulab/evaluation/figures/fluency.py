"""Fluency of a generated response, from its text alone. Pure functions; words as `written_words` gives them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from erulab.data.words import written_words
from erulab.evaluation import texts

LONGEST_NGRAM = 4


def fluency_figures(response: str) -> dict[str, float]:
    """Returns `distinct_ngrams`, `longest_repetition` and `entropy` of one response."""
    words = written_words(response)
    return {
        "distinct_ngrams": distinct_ngrams(words),
        "longest_repetition": longest_repetition(words),
        "entropy": texts.fluency([response]),
    }


def distinct_ngrams(words: Sequence[str]) -> float:
    """Returns the share of n-grams that differ from each other, a mean over n = 1 to 4, in [0, 1].

    1 if no word occurs twice, near 0 for a word that is repeated for ever. Lengths of which a short response has no
    n-gram are left out; an empty response has 0.
    """
    shares = []
    for n in range(1, min(LONGEST_NGRAM, len(words)) + 1):
        ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        shares.append(len(set(ngrams)) / len(ngrams))
    return sum(shares) / len(shares) if shares else 0.0


def longest_repetition(words: Sequence[str]) -> float:
    """Returns the share of the words that the longest stretch of one block, repeated immediately, takes; in [0, 1].

    `a b c c c d` has the stretch `c c c` (1/2), `a b a b a` is one stretch (1). 0 if no block is repeated.
    """
    numbers = {word: i for i, word in enumerate(dict.fromkeys(words))}
    ids = np.array([numbers[word] for word in words], dtype=np.int64)
    longest = 0
    for length in range(1, len(ids) // 2 + 1):
        # A word equals the one a block earlier wherever a block is repeated; `length` such words repeat all of it.
        same = ids[length:] == ids[:-length]
        if same.sum() < length:
            continue
        ends = np.flatnonzero(np.diff(np.concatenate([[0], same.astype(np.int8), [0]])))
        run = int((ends[1::2] - ends[::2]).max(initial=0))
        if run >= length:
            longest = max(longest, run + length)
    return longest / len(ids) if len(ids) else 0.0
