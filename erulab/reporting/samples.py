"""Prepares the models' texts for a page: side by side, with the words marked that differ from the target's."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from erulab.reporting.escape import visible
from erulab.reporting.load import MODELS

LONGEST = 2000  # words; comparing longer texts would take seconds
_WORDS = re.compile(r"\s+|[^\s]+")


@dataclass(frozen=True)
class SampleView:
    """One prompt and what the models said.

    texts: (model, its text) of the models that answered; escaped.
    alike: whether several models answered, and all of them the same.
    """

    suite: str
    prompt: str
    reference: str | None
    texts: tuple[tuple[str, Markup], ...]
    alike: bool


def sample_views(samples: Sequence[dict[str, Any]]) -> list[SampleView]:
    """Returns the samples of samples.json in their order."""
    views = []
    for sample in samples:
        said = {model: str(sample[model]) for model in MODELS if sample.get(model) is not None}
        target = said.get("target")
        texts = tuple(
            (model, Markup("{}").format(visible(text, lines=True)) if target is None else marked_words(text, target))
            for model, text in said.items()
        )
        reference = sample.get("reference")
        views.append(
            SampleView(
                str(sample.get("suite", "")),
                str(sample.get("prompt", "")),
                None if reference is None else str(reference),
                texts,
                alike=len(said) > 1 and len(set(said.values())) == 1,
            )
        )
    return views


def marked_words(text: str, other: str) -> Markup:
    """Returns a text as HTML in which the words that `other` lacks at their place are marked."""
    mine, theirs = _WORDS.findall(visible(text, lines=True)), _WORDS.findall(visible(other, lines=True))
    if max(len(mine), len(theirs)) > LONGEST:
        return Markup("{}").format("".join(mine))
    parts = []
    for what, start, end, _, _ in difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        own = "".join(mine[start:end])
        # White space alone is no difference that a reader could see.
        marked = what != "equal" and own.strip()
        parts.append(Markup("<mark>{}</mark>" if marked else "{}").format(own))
    return Markup("").join(parts)
