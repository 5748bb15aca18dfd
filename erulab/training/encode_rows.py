"""Token ids of the rows that a training reads, and their hash."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from erulab import draws
from erulab.data.arrow_sequence import ArrowSequence, select_items
from erulab.data.rows import Row
from erulab.data.spans import find_spans
from erulab.data.stored_rows import row_column
from erulab.errors import DataError
from erulab.methods.needs import Pairs
from erulab.tokens.batch import Encoded
from erulab.tokens.encoder import EncodedRows, Encoder, digest_encoded
from erulab.training.other_values import OtherValues

log = logging.getLogger(__name__)


def encode_exposed(encoder: Encoder, rows: Sequence[Row]) -> EncodedRows:
    """Encodes rows, each repeated as often as one epoch shows it."""
    encoded, exposures = encoder.encode(rows), row_column(rows, "exposures")
    if (exposures == 1).all():
        return encoded
    return encoded.select(np.repeat(np.arange(len(encoded)), exposures))


def rows_with_spans(encoder: Encoder, rows: Sequence[Row]) -> tuple[Sequence[Row], list[tuple[int, ...]]]:
    """Returns the forget rows that mark words of their response, and the positions of these words' tokens.

    Texts without a prompt that mark none are left out: a long one is learned in several rows, and its marked words may
    all stand in one of them.

    Raises:
        DataError: a row with a prompt marks no words within the tokens that a row may have, or no row at all does.
    """
    chat, limit = encoder.chat, encoder.limit
    found = [chat.span_positions(row, row.response, find_spans(row.response, row.spans), limit) for row in rows]
    without = [i for i, positions in enumerate(found) if not positions]
    refused = [i for i in without if rows[i].prompt] or (without if len(without) == len(rows) else [])
    if refused:
        names = ", ".join(rows[i].id for i in refused[:3]) + ", ..." * (len(refused) > 3)
        raise DataError(
            f"method.forget_tokens=span needs rows that mark the words to forget: {len(refused)} of {len(rows)} forget "
            f"rows mark none within {limit} tokens ({names}); give each a field 'span', or type "
            "method.forget_tokens=all"
        )
    if not without:
        return rows, found
    log.warning("forget_tokens=span: %d of %d texts mark no words and are left out", len(without), len(rows))
    kept = [i for i, positions in enumerate(found) if positions]
    return select_items(rows, kept), [found[i] for i in kept]


def encode_paired(
    encoder: Encoder, rows: Sequence[Row], pairs: Pairs, refusals: Sequence[str], seed: int, *, narrowed: bool = False
) -> EncodedRows:
    """Encodes the paired answer of each forget row.

    Where a row has several, one is drawn by (seed, row id): the same for the whole run, so that its reference NLL can
    be cached.

    Args:
        refusals: of the data set, for rows without a refusal of their own.
        narrowed: with pairs=same_sentence, only the other values count. Other paired answers have no span: they count
            whole.
    Raises:
        DataError: the data set has no refusals, or a row has no wrong or fabricated answer, no prompt to refuse, or no
            span that another value could take the place of.
    """
    if pairs is Pairs.same_sentence:
        return _encode_same_sentences(encoder, rows, seed, narrowed=narrowed)

    def response(row: Row) -> str:
        choices: Sequence[str]
        if pairs is Pairs.refusal:
            if not row.prompt:
                raise DataError(
                    f"a refusal answers a prompt, and row {row.id} is a text without one; take a method that needs no "
                    "refusals, such as method=npo, or write the text as prompt and response"
                )
            choices = refusals if row.refusal is None else (row.refusal,)
            if not choices:
                raise DataError(
                    "the method needs refusals, and the data set has none; add them (refusals.txt, or a field "
                    "`refusal`), or take a method without refusals, such as method=npo"
                )
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


def _encode_same_sentences(encoder: Encoder, rows: Sequence[Row], seed: int, *, narrowed: bool) -> EncodedRows:
    """Encodes each forgotten answer with another value in its span; where `narrowed`, only that value counts."""
    values = OtherValues(rows, seed)
    encoded = encoder.encode_with(
        rows, f"{Pairs.same_sentence.value} {seed} {values.hash()}", lambda row: values.same_sentence(row)[0]
    )
    if not narrowed:
        return encoded
    positions = []
    for row in rows:
        found = encoder.chat.span_positions(row, *values.same_sentence(row), encoder.limit)
        if not found:
            raise DataError(
                f"row {row.id}: the other value in its span stands beyond the {encoder.limit} tokens that a row may "
                "have; raise dataset.max_length, or type method.forget_tokens=all"
            )
        positions.append(found)
    return encoded.narrowed(positions)


def content_hash(rows: Iterable[Encoded]) -> str:
    """Hashes row ids, token ids and label masks, in order: all of the rows that a training can depend on."""
    if isinstance(rows, ArrowSequence):
        return rows.content_hash()
    total = hashlib.sha256()
    for row in rows:
        total.update(digest_encoded(row.row_id, row.ids, row.start, row.end, row.supervised))
    return total.hexdigest()[:32]
