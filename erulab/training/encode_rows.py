"""Rows of a benchmark as token ids, ready for training."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from erulab import draws
from erulab.data.encoding import Encoded
from erulab.data.rows import Row
from erulab.errors import DataError
from erulab.methods.base import Pairs

if TYPE_CHECKING:
    from erulab.models.chat import ChatFormat

log = logging.getLogger(__name__)


def encode_rows(chat: ChatFormat, rows: Sequence[Row], max_length: int | None) -> list[Encoded]:
    """Each row's prompt and response."""
    return [chat.encode(row.id, row.prompt, row.response, max_length=max_length) for row in rows]


def encode_exposed(chat: ChatFormat, rows: Sequence[Row], max_length: int | None) -> list[Encoded]:
    """As `encode_rows`, each row as often as an epoch shows it."""
    encoded = encode_rows(chat, rows, max_length)
    return [code for row, code in zip(rows, encoded, strict=True) for _ in range(row.exposures)]


def encode_others(
    chat: ChatFormat, rows: Sequence[Row], pairs: Pairs, refusals: Sequence[str], seed: int, max_length: int | None
) -> list[Encoded]:
    """The paired answer of each forget row: fixed for the run by (seed, row id), so its reference can be cached.

    Raises:
        DataError: the data set has no refusals, or a row no wrong answers.
    """
    others = []
    for row in rows:
        if pairs is Pairs.refusal:
            choices: Sequence[str] = refusals
        else:
            choices = row.perturbed
        if not choices:
            wanted = "refusals" if pairs is Pairs.refusal else f"wrong answers for row {row.id}"
            raise DataError(f"method.pairs={pairs.value} needs {wanted}, the data set has none; try method.pairs=none")
        response = choices[draws.choice(len(choices), seed, "pair", row.id)]
        others.append(chat.encode(row.id, row.prompt, response, max_length=max_length))
    return others


def content_hash(rows: Sequence[Encoded]) -> str:
    """Hash of token ids and label masks, in order: what a training really learns from."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.row_id, row.ids, row.start, row.end)).encode())
    return digest.hexdigest()[:32]
