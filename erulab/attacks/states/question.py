"""Rows whose answer is one of a few values: what a linear probe can tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erulab.data.rows import Row
from erulab.tokens.batch import Encoded

if TYPE_CHECKING:
    from erulab.tokens.chat import ChatFormat


@dataclass(frozen=True)
class Question:
    """A row whose value is one of a few."""

    row: Row
    value: str
    wrong: tuple[str, ...]

    @staticmethod
    def of(row: Row) -> Question | None:
        """None for a row that has neither candidates nor options."""
        if row.candidates:
            return Question(row, row.value, row.candidates)
        return Question(row, row.response, row.options) if row.options else None

    @property
    def fact(self) -> str:
        return self.row.fact_id

    def encoded(self, chat: ChatFormat) -> Encoded:
        """Supervised from the value on: the state right before it is what a probe reads."""
        row = self.row
        span = (len(row.prefix), len(row.prefix) + len(row.value)) if row.candidates else None
        return chat.encode(row, span=span)
