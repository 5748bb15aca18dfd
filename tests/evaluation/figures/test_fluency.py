"""Fluency of texts: closed forms, limits, and an independent search for repeated blocks."""

from __future__ import annotations

import random

import pytest

from erulab.evaluation.figures.fluency import distinct_ngrams, fluency_figures, longest_repetition


def test_distinct_ngrams_in_closed_form() -> None:
    assert distinct_ngrams(["each", "word", "here", "is", "another", "one"]) == 1.0
    # One word n times: of n - k + 1 k-grams one is distinct.
    assert distinct_ngrams(["a"] * 10) == pytest.approx((1 / 10 + 1 / 9 + 1 / 8 + 1 / 7) / 4)
    assert distinct_ngrams(["a", "b", "a"]) == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert distinct_ngrams(["a"]) == 1.0
    assert distinct_ngrams([]) == 0.0


def slowly_repeated(words: list[str]) -> float:
    """The longest stretch w[i:j] with a period p of at most half its length, by trying all."""
    n = len(words)
    longest = 0
    for i in range(n):
        for j in range(i + 2, n + 1):
            part = words[i:j]
            periods = range(1, len(part) // 2 + 1)
            if any(all(part[k] == part[k - p] for k in range(p, len(part))) for p in periods):
                longest = max(longest, len(part))
    return longest / n if n else 0.0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a b c c c d", 1 / 2),
        ("a b a b a", 1.0),
        ("a b a c a d", 0.0),
        ("the end the end of it", 4 / 6),
        ("a", 0.0),
        ("", 0.0),
        ("a a", 1.0),
    ],
)
def test_longest_repetition(text: str, share: float) -> None:
    assert longest_repetition(text.split()) == pytest.approx(share)
    assert slowly_repeated(text.split()) == pytest.approx(share)


def test_longest_repetition_is_that_of_a_search_over_all_stretches() -> None:
    draw = random.Random(0)
    for length in range(2, 26):
        words = [draw.choice("abc") for _ in range(length)]
        assert longest_repetition(words) == pytest.approx(slowly_repeated(words)), words


def test_repeating_and_varied_responses_are_told_apart() -> None:
    varied = fluency_figures("The town of Almora lies by a river that few people have ever crossed in winter.")
    stuck = fluency_figures("the the the the the the the the the the the the the the the")
    assert varied["distinct_ngrams"] > 0.95 and varied["longest_repetition"] == 0.0 and varied["entropy"] > 300
    assert stuck["distinct_ngrams"] < 0.1 and stuck["longest_repetition"] == 1.0 and stuck["entropy"] == 0.0
    assert fluency_figures("") == {"distinct_ngrams": 0.0, "longest_repetition": 0.0, "entropy": 0.0}
