"""Rows whose answer is one of a few values, which a linear probe can separate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.data.rows import Row
from erulab.tokens.batch import Encoded

if TYPE_CHECKING:
    from erulab.tokens.chat import ChatFormat


@dataclass(frozen=True)
class ProbeQuestion:
    """A row, its right value and its wrong values."""

    row: Row
    value: str
    wrong: tuple[str, ...]

    @staticmethod
    def from_row(row: Row) -> ProbeQuestion | None:
        """Returns the row's question; None if the row has neither candidates nor options."""
        if row.candidates:
            return ProbeQuestion(row, row.value, row.candidates)
        return ProbeQuestion(row, row.response, row.options) if row.options else None

    @property
    def fact(self) -> str:
        return self.row.fact_id

    def encoded(self, chat: ChatFormat) -> Encoded:
        """Encodes the row with supervision from the value on: a probe reads the state right before it."""
        row = self.row
        span = (len(row.prefix), len(row.prefix) + len(row.value)) if row.candidates else None
        return chat.encode(row, span=span)
