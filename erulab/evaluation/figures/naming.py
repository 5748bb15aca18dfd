"""The names of forgotten authors and subjects, and which prompts hold one. Pure functions.

Scripts without capitals do not show which words are names: only `Row.author` tells them there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from erulab.data.rows import Row
from erulab.data.words import held_names, name_words


def forgotten_names(forget: Iterable[Row]) -> frozenset[str]:
    """Returns the words of the forgotten authors' and subjects' names.

    A name is made of the words of `Row.author` that have a capital, or are of a script without capitals, if a row of
    that author holds them all. Otherwise, as in TOFU, whose authors are numbers, it is made of the capitalised words
    that most of the author's prompts hold.
    """
    own: dict[str, list[Row]] = {}
    for row in forget:
        if row.author:
            own.setdefault(row.author, []).append(row)
    names: set[str] = set()
    for author, rows in own.items():
        words = {word for word in name_words(author) if not word[0].islower()}
        texts = (f"{row.prompt} {row.response}" for row in rows)
        held = bool(words) and any(held_names(text, words) == words for text in texts)
        names |= words if held else _common_names([row.prompt for row in rows])
    return frozenset(names)


def names_one_of(prompt: str, names: frozenset[str]) -> bool:
    """Returns whether one of the names is a word of the prompt; case counts."""
    return bool(held_names(prompt, names))


def _common_names(prompts: Sequence[str]) -> set[str]:
    """Returns the capitalised words, other than a prompt's first, that more than half of several prompts hold."""
    counts = Counter(word for prompt in prompts for word in {*name_words(prompt)[1:]} if word[0].isupper())
    return {word for word, count in counts.items() if 2 * count > len(prompts) > 1}
