"""The words of a response that carry its fact, such as "Nashville" in "Ada was born in Nashville."."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

WORD = r"\w+"


def stands_alone(text: str, span: str) -> bool:
    """Tells whether a text holds a span as words of its own: "art" does not stand alone in "started"."""
    return re.search(_alone(span), text) is not None


def find_spans(text: str, spans: Sequence[str]) -> list[tuple[int, int]]:
    """Finds every place of the spans in a text.

    A span counts where it stands as words of its own; one that nowhere does (as in scripts without spaces) counts
    wherever it occurs. Places do not overlap: of two spans that begin together, the longer one counts.

    Returns:
        First character and the one behind the last of each place, in order; empty where no span occurs.
    """
    return [found.span() for found in _places(text, spans)]


def replace_spans(text: str, values: Mapping[str, str]) -> tuple[str, list[tuple[int, int]]]:
    """Puts other words in the places of the spans.

    Args:
        values: span -> the words that replace it in all its places.
    Returns:
        The text with these words, and the characters of each of them as `find_spans` gives them.
    """
    pieces: list[str] = []
    places: list[tuple[int, int]] = []
    copied = length = 0
    for found in _places(text, tuple(values)):
        value = values[found.group()]
        pieces += [text[copied : found.start()], value]
        length += len(pieces[-2])
        places.append((length, length + len(value)))
        length += len(value)
        copied = found.end()
    return "".join([*pieces, text[copied:]]), places


def repeated_words(text: str, context: str) -> list[tuple[int, int]]:
    """Returns the places of the text's words that also stand in the context, whatever their capitals."""
    told = {word.casefold() for word in re.findall(WORD, context)}
    return [found.span() for found in re.finditer(WORD, text) if found.group().casefold() in told]


def span_kind(span: str) -> str:
    """Returns how a span is written: "number" with a digit in it, "name" with a capital at its start, or "word"."""
    if any(character.isdigit() for character in span):
        return "number"
    return "name" if span[:1].isupper() else "word"


def _places(text: str, spans: Sequence[str]) -> list[re.Match[str]]:
    patterns = [
        _alone(span) if stands_alone(text, span) else re.escape(span)
        for span in sorted(set(spans), key=lambda span: (-len(span), span))
    ]
    return list(re.finditer("|".join(patterns), text)) if patterns else []


def _alone(span: str) -> str:
    return rf"(?<!\w){re.escape(span)}(?!\w)"
