"""Other values for the words that carry a fact: the paired answers of method.pairs=same_sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

from erulab import draws
from erulab.data.rows import Row
from erulab.data.spans import replace_spans, span_kind
from erulab.errors import DataError


class OtherValues:
    """Draws a value in place of each span of a row, by (seed, row id).

    It is one of the row's `span_alternatives`, or of its `candidates` (values of the same attribute in an embedded
    world). A row that has neither gets a span of another forget row: one that is written like its own (a number, a
    name with a capital at its start, or another word), or, where there is none, any. It is never a span or another
    right answer of the row itself.
    """

    def __init__(self, rows: Sequence[Row], seed: int) -> None:
        self._rows, self._seed = rows, seed

    def same_sentence(self, row: Row) -> tuple[str, list[tuple[int, int]]]:
        """Returns the row's response with other values in its spans, and the characters of these values.

        Raises:
            DataError: the row marks no span, or there is no other value for one.
        """
        if not row.spans:
            raise DataError(
                f"method.pairs=same_sentence puts another value in the span of a response, and row {row.id} marks "
                "none; give it a field 'span', or try method.pairs=none"
            )
        values = {span: self._draw(row, number, span) for number, span in enumerate(row.spans)}
        return replace_spans(row.response, values)

    def hash(self) -> str:
        """Hashes all that the drawn values depend on beside the seed and the row itself."""
        return hashlib.sha256(repr(sorted(self._spans_by_kind.items())).encode()).hexdigest()

    def _draw(self, row: Row, number: int, span: str) -> str:
        listed = row.span_alternatives or row.candidates
        by_kind = self._spans_by_kind
        tried = [listed] if listed else [by_kind.get(span_kind(span), []), [v for one in by_kind.values() for v in one]]
        right = {*row.spans, *row.accepted}
        others = next((found for values in tried if (found := [v for v in values if v not in right])), [])
        if not others:
            raise DataError(
                f"method.pairs=same_sentence: there is no other value for {span!r} of row {row.id}; mark spans in more "
                "forget rows, or give the row a field 'span_alternatives'"
            )
        return others[draws.choice(len(others), self._seed, "pair", row.id, number)]

    @cached_property
    def _spans_by_kind(self) -> dict[str, list[str]]:
        """Every span of the forget rows by its kind, in alphabetical order."""
        found: dict[str, set[str]] = {}
        for row in self._rows:
            for span in row.spans:
                found.setdefault(span_kind(span), set()).add(span)
        return {kind: sorted(spans) for kind, spans in found.items()}
