"""Token ids of the rows that a training reads, and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from erulab import draws
from erulab.data.arrow_sequence import ArrowSequence
from erulab.data.rows import Row
from erulab.data.stored_rows import row_column
from erulab.errors import DataError
from erulab.methods.base import Pairs
from erulab.tokens.batch import Encoded
from erulab.tokens.encoder import EncodedRows, Encoder, digest_encoded


def encode_exposed(encoder: Encoder, rows: Sequence[Row]) -> EncodedRows:
    """Encodes rows, each repeated as often as one epoch shows it."""
    encoded, exposures = encoder.encode(rows), row_column(rows, "exposures")
    if (exposures == 1).all():
        return encoded
    return encoded.select(np.repeat(np.arange(len(encoded)), exposures))


def encode_paired(
    encoder: Encoder, rows: Sequence[Row], pairs: Pairs, refusals: Sequence[str], seed: int
) -> EncodedRows:
    """Encodes the paired answer of each forget row.

    Where a row has several, one is drawn by (seed, row id): the same for the whole run, so that its reference NLL can
    be cached.

    Args:
        refusals: of the data set, for rows without a refusal of their own.
    Raises:
        DataError: the data set has no refusals, or a row has no wrong or fabricated answer, or no prompt to refuse.
    """

    def response(row: Row) -> str:
        choices: Sequence[str]
        if pairs is Pairs.refusal and not row.prompt:
            raise DataError(
                f"a refusal answers a prompt, and row {row.id} is a text without one; take a method that needs no "
                "refusals, such as method=npo, or write the text as prompt and response"
            )
        if pairs is Pairs.refusal:
            kind, choices = "refusals", refusals if row.refusal is None else (row.refusal,)
        elif pairs is Pairs.fabricated:
            kind = f"a fabricated answer for row {row.id}"
            choices = () if row.fabricated is None else (row.fabricated,)
        else:
            kind, choices = f"wrong answers for row {row.id}", row.perturbed
        if not choices:
            raise DataError(f"method.pairs={pairs.value} needs {kind}, the data set has none; try method.pairs=none")
        return choices[draws.choice(len(choices), seed, "pair", row.id)]

    texts = hashlib.sha256(repr(tuple(refusals)).encode()).hexdigest() if pairs is Pairs.refusal else ""
    return encoder.encode_with(rows, f"{pairs.value} {seed} {texts}", response)


def encode_alternatives(
    encoder: Encoder, rows: Sequence[Row], alternatives: Mapping[str, Sequence[str]]
) -> EncodedRows:
    """Encodes several alternatives of each forget row: the first of all rows, then the second of all rows, ...

    Args:
        alternatives: row id -> texts, the same number for each row.
    """
    count = len(alternatives[rows[0].id])

    def encode_one(index: int) -> EncodedRows:
        texts = [alternatives[row.id][index] for row in rows]
        name = f"alternative {hashlib.sha256(repr(texts).encode()).hexdigest()}"
        return encoder.encode_with(rows, name, lambda row: alternatives[row.id][index])

    return EncodedRows.concatenate([encode_one(index) for index in range(count)])


def content_hash(rows: Iterable[Encoded]) -> str:
    """Hashes row ids, token ids and label masks, in order: all of the rows that a training can depend on."""
    if isinstance(rows, ArrowSequence):
        return rows.content_hash()
    total = hashlib.sha256()
    for row in rows:
        total.update(digest_encoded(row.row_id, row.ids, row.start, row.end))
    return total.hexdigest()[:32]
