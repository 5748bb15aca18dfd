"""The words of a text in any script. Pure functions.

Scripts that put no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, ...) go by character. A
combining mark (a vowel sign of Hindi, an accent) belongs to the letter before it.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    import regex
else:
    regex = lazy_loader.load("regex")  # knows the scripts of Unicode, which re does not

UNSPACED_SCRIPTS = (
    *("Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Thai", "Lao", "Khmer", "Myanmar"),
    *("Tai_Le", "New_Tai_Lue", "Tai_Tham", "Javanese", "Balinese"),
)
# The Japanese mark of a long vowel belongs to no script of its own.
_UNSPACED = "[" + "".join(rf"\p{{Script={script}}}" for script in UNSPACED_SCRIPTS) + "ー]"
_SIGNS = r"[\p{L}\p{N}]"
_CHARACTER = rf"[{_SIGNS}&&{_UNSPACED}]\p{{M}}*"
_WORD = rf"{_CHARACTER}|[{_SIGNS}--{_UNSPACED}][[\p{{L}}\p{{N}}\p{{M}}]--{_UNSPACED}]*"
# Joiners, soft hyphens and the Arabic line that stretches a word change how a word looks, not which word it is.
_JOINERS = re.compile("[\u200b-\u200d\u2060\ufeff\u00ad\u0640]")
FULL_STOPS = ".。｡．।॥۔።။។"  # also of Chinese, Hindi, Urdu, Amharic, Burmese, Khmer
_ASCII_WORD = re.compile("[a-z0-9]+")
_PUBLISHED_WORD = re.compile("[a-z0-9]")  # what rouge_score makes words of, in lower case


def split_words(text: str) -> list[str]:
    """Returns the words without case and punctuation: runs of letters and digits, or single characters.

    Compatibility forms are unified (NFKC: full-width letters, ligatures), and so are capitals (Unicode case folding).
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    folded = unicodedata.normalize("NFKC", _JOINERS.sub("", text)).casefold()
    # Folding can take a letter apart.
    return list(_pattern(_WORD).findall(unicodedata.normalize("NFKC", folded)))


def written_words(text: str) -> list[str]:
    """Returns the words as they are written, with case and punctuation: parts between white space, or characters."""
    return [piece for word in text.split() for piece in split_written(word)]


def split_written(word: str) -> list[str]:
    """Splits a part of a text into characters of scripts without spaces and what stands between these.

    The parts joined are the text again; white space stays with the part behind it.
    """
    if word.isascii():
        return [word]
    return list(_pattern(rf"\s*(?:{_CHARACTER}|(?:(?!{_CHARACTER}).)+)").findall(word)) or [word]


def is_latin(text: str) -> bool:
    """Returns whether a text is written in Latin script: at least half of its words that have letters.

    Such texts keep the words that the benchmarks' published code finds in them, so that published figures are
    reproduced to the last digit: TOFU's and MUSE's English texts hold a few Cyrillic and Hebrew words. A text in which
    that code finds no word at all (accented letters only, digits of other scripts) does not count as Latin.
    """
    return text.isascii() or _is_mostly_latin(text)


@functools.lru_cache(4096)
def _is_mostly_latin(text: str) -> bool:
    if not _PUBLISHED_WORD.search(text.lower()):
        return False
    spelt = [word for word in split_words(text) if _pattern(r"\p{L}").search(word)]
    latin = sum(bool(_pattern(r"\p{Script=Latin}").search(word)) for word in spelt)
    return 2 * latin >= len(spelt)


def has_words(text: str) -> bool:
    """Returns whether a text has a letter or a digit: emoji, formula signs and punctuation are no words."""
    return bool(_PUBLISHED_WORD.search(text.lower()) or split_words(text))


def stands_alone_pattern(text: str) -> str:
    """Returns a pattern of `re` that finds a text as words of its own: "art" does not stand alone in "started".

    An end in a script without spaces needs no space beside it.
    """
    before, after = ("" if _is_unspaced(end) else r"\w" for end in (text[:1], text[-1:]))
    return f"{f'(?<!{before})' if before else ''}{re.escape(text)}{f'(?!{after})' if after else ''}"


def name_words(text: str) -> list[str]:
    """Returns the words as they are written, without punctuation and numbers; a possessive's 's does not count."""
    found = _pattern(r"[\p{L}\p{M}]+(?:[-'’][\p{L}\p{M}]+)*").findall(text)
    return [word.removesuffix("'s").removesuffix("’s") for word in found]


def held_names(text: str, names: Collection[str]) -> set[str]:
    """Returns the names that are words of a text; case counts. In scripts without spaces a name may stand anywhere."""
    words = set(name_words(text))
    return {name for name in names if name in words or (_is_unspaced(name[-1:]) and name in text)}


def holds_words(words: list[str], part: list[str]) -> bool:
    """Returns whether some words occur one after another among others; no words never do."""
    return bool(part) and any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))


def _is_unspaced(character: str) -> bool:
    # A vowel sign at the end of a text belongs to a letter of the same script.
    return bool(character and not character.isascii() and _pattern(_UNSPACED).match(character))


@functools.cache
def _pattern(pattern: str) -> regex.Pattern[str]:
    return regex.compile(pattern, regex.VERSION1 | regex.DOTALL)
