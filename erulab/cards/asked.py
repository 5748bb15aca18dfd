"""What a request asked for, as hashes: who holds the rows can show that they are those, and nobody reads them here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from erulab.data.rows import Row


@dataclass(frozen=True)
class Asked:
    """One request as its rows name it.

    request: its name; "" for a data set with one request.
    number, count: its place among the data set's requests, from 1, and how many there are.
    dataset, content: the data set's name, and the SHA-256 of what identifies its content.
    rows: (id, SHA-256 of the texts) of every row that the request names.
    trained_on: number of these rows that fit the model's context.
    """

    request: str
    number: int
    count: int
    dataset: str
    content: str
    rows: Sequence[tuple[str, str]]
    trained_on: int

    @property
    def plain(self) -> dict[str, Any]:
        """The part `asked` of an audit, without the data set's options."""
        return {
            "request": self.request,
            "number": self.number,
            "of": self.count,
            "dataset": {"name": self.dataset, "sha256": self.content},
            "forget": {
                "rows": len(self.rows),
                "trained_on": self.trained_on,
                "sha256": hash_rows(digest for _, digest in self.rows),
                "hashes": [{"id": row_id, "sha256": digest} for row_id, digest in self.rows],
            },
        }


def hash_row(row: Row) -> str:
    """Returns the SHA-256 of a row's texts: of the UTF-8 bytes of a JSON list of them, as 64 hex digits.

    The list holds prompt and response. Texts that few rows have stand where the model reads them: the system turn and
    earlier turns before the prompt, the opening of the answer after it.
    """
    before = [text for text in (row.system, *(text for turn in row.history for text in turn)) if text]
    texts = [*before, row.prompt, *([row.answer_prefix] if row.answer_prefix else []), row.response]
    return hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode(errors="surrogatepass")).hexdigest()


def hash_rows(digests: Iterable[str]) -> str:
    """Returns the SHA-256 of rows in their order: of their hashes, one per line, without an end of line at the end."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
