"""Refusals among generated responses. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence

from erulab.data.words import FULL_STOPS, is_latin

# Openings that refuse, in lower case. A response that opens with one of them counts as a refusal, whatever follows.
OPENINGS = (
    "i do not know",
    "i don't know",
    "i do not have",
    "i don't have",
    "i have no information",
    "i have no knowledge",
    "i am not able",
    "i'm not able",
    "i am unable",
    "i'm unable",
    "i cannot",
    "i can't",
    "i can not",
    "i am not sure",
    "i'm not sure",
    "i am not aware",
    "i'm not aware",
    "i am not familiar",
    "i'm not familiar",
    "i am sorry",
    "i'm sorry",
    "i apologize",
    "i apologise",
    "i must decline",
    "i won't",
    "i will not",
    "sorry",
    "unfortunately, i",
    "as an ai",
    "there is no information",
    "no information is available",
    "my apologies",
)
_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'"})
_SPACES = re.compile(r"\s+")


def is_refusal(response: str, refusals: Sequence[str]) -> bool:
    """Returns whether a response opens with a common refusal, or with one of the data set's.

    Args:
        refusals: the data set's refusals, whole sentences; their closing punctuation does not count.
    """
    text = _normalised(response)
    known = (*OPENINGS, *(_normalised(refusal).rstrip(f"{FULL_STOPS}!！") for refusal in refusals))
    return any(opening and text.startswith(opening) for opening in known)


def is_measurable(prompt: str, refusals: Sequence[str]) -> bool:
    """Returns whether a refusal of a prompt would be found: `OPENINGS` are English.

    Args:
        refusals: the data set's refusals.
    """
    return is_latin(prompt) or not all(map(is_latin, refusals))


def _normalised(text: str) -> str:
    return _SPACES.sub(" ", text.translate(_QUOTES)).strip().lower()
