"""What a report says of several oracles: how far they lie from one another, and which of them the tables show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erulab.reporting.numbers import number, signed
from erulab.roles import oracles_among


def spread_sentence(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the range of knowledge left over the oracles, as a sentence; "" if fewer than two have the figure.

    Args:
        scores: the content of scores.json. Each oracle's `knowledge_left` compares it with the mean of the others.
    """
    left = [number(scores[role].get("knowledge_left")) for role in oracles_among(scores)]
    known = [value for value in left if value is not None]
    if len(known) < 2:
        return ""
    return (
        f"{len(known)} oracles: a model that never saw the facts scores between {signed(min(known))} and "
        f"{signed(max(known))}; the 95 % interval of knowledge left includes this spread."
    )


def shown_oracle_note(scores: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns the note of a table that shows one oracle of several, for `Table.notes`; () otherwise."""
    count = len(oracles_among(scores))
    return (f"oracle: the first of {count}; scores.json has the figures of all.",) if count > 1 else ()
