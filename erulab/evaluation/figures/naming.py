"""The names of forgotten authors and subjects, and which prompts hold one. Pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from erulab.data.rows import Row

_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")


def forgotten_names(forget: Iterable[Row]) -> frozenset[str]:
    """Returns the words of the forgotten authors' and subjects' names.

    A name is made of the capitalised words of `Row.author`, if a row of that author holds them all. Otherwise, as in
    TOFU, whose authors are numbers, it is made of the capitalised words that most of the author's prompts hold.
    """
    own: dict[str, list[Row]] = {}
    for row in forget:
        if row.author:
            own.setdefault(row.author, []).append(row)
    names: set[str] = set()
    for author, rows in own.items():
        words = {word for word in _words(author) if word[0].isupper()}
        held = bool(words) and any(words <= set(_words(f"{row.prompt} {row.response}")) for row in rows)
        names |= words if held else _common_names([row.prompt for row in rows])
    return frozenset(names)


def names_one_of(prompt: str, names: frozenset[str]) -> bool:
    """Returns whether one of the names is a word of the prompt; case counts."""
    return not names.isdisjoint(_words(prompt))


def _common_names(prompts: Sequence[str]) -> set[str]:
    """Returns the capitalised words, other than a prompt's first, that more than half of several prompts hold."""
    counts = Counter(word for prompt in prompts for word in {*_words(prompt)[1:]} if word[0].isupper())
    return {word for word, count in counts.items() if 2 * count > len(prompts) > 1}


def _words(prompt: str) -> list[str]:
    return [word.removesuffix("'s").removesuffix("’s") for word in _WORD.findall(prompt)]
