"""Ids put into prompts: where they stand, in every form of template, and that nothing else moves."""

from __future__ import annotations

import pytest

from erulab.data.rows import Row
from erulab.tokens.batch import Encoded
from erulab.tokens.chat import ChatFormat
from erulab.tokens.insertion import InsertingChatFormat, Place
from tests.models.conftest import byte_level
from tests.tokens.test_chat import ANSWER, CASES, QUESTION

IDS = (9001, 9002, 9003)
PASSAGE, REST = "Ada was born in Brenwick, ", "by the sea."


def inserted(chat: ChatFormat, place: Place) -> InsertingChatFormat:
    return InsertingChatFormat(chat, lambda prompt: IDS, place)


def without(encoded: Encoded) -> tuple[tuple[int, ...], int]:
    """The ids around what was put in, and where that stood."""
    place = encoded.ids.index(IDS[0])
    assert encoded.ids[place : place + 3] == IDS
    return (*encoded.ids[:place], *encoded.ids[place + 3 :]), place


@pytest.mark.parametrize("lead", ["", "Ada was"])
@pytest.mark.parametrize("case", CASES)
def test_ids_stand_at_the_end_of_the_users_text_or_before_the_response(case: str, lead: str) -> None:
    make, template, *_ = CASES[case]
    tokenizer = make()
    tokenizer.chat_template = template
    chat = ChatFormat(tokenizer, 512)
    plain = chat.encode(Row("r", QUESTION, ANSWER, answer_prefix=lead))
    ends = {}
    for place in Place:
        ours = inserted(chat, place)
        found = ours.encode(Row("r", QUESTION, ANSWER, answer_prefix=lead))
        ids, ends[place] = without(found)
        assert ids == plain.ids and (found.start, found.end) == (plain.start + 3, plain.end + 3)
        assert tuple(ours.encode_prompt(Row("", QUESTION, "", answer_prefix=lead))) == found.ids[: found.start]
    assert ends[Place.response] == plain.start
    before = tokenizer.decode(plain.ids[: ends[Place.user_turn]], clean_up_tokenization_spaces=False)
    assert before.replace(" ", "").endswith(QUESTION.replace(" ", ""))


def test_only_the_value_counts_and_it_moves_with_the_response() -> None:
    tokenizer = byte_level()
    chat = ChatFormat(tokenizer, 512)
    span = (ANSWER.index("satire"), ANSWER.index("satire") + 6)
    plain = chat.encode(Row("r", QUESTION, ANSWER), span=span)
    found = inserted(chat, Place.user_turn).encode(Row("r", QUESTION, ANSWER), span=span)
    assert found.ids[found.start : found.end] == plain.ids[plain.start : plain.end]
    assert tokenizer.decode(found.ids[found.start : found.end]).strip() == "satire"


@pytest.mark.parametrize("place", Place)
def test_in_running_text_ids_stand_before_the_response(place: Place) -> None:
    chat = ChatFormat(byte_level(), 512)
    plain = chat.encode(Row("r", PASSAGE, REST, plain=True))
    found = inserted(chat, place).encode(Row("r", PASSAGE, REST, plain=True))
    assert without(found) == (plain.ids, plain.start) and found.start == plain.start + 3


def test_a_row_fits_where_prompt_ids_and_response_do() -> None:
    row = Row("r", QUESTION, ANSWER)
    length = len(ChatFormat(byte_level(), 512).encode(Row("r", QUESTION, ANSWER)).ids)
    for context, fits in ((length + 3, True), (length + 2, False)):
        ours = inserted(ChatFormat(byte_level(), context), Place.response)
        assert ours.fits(row) is fits
        assert len(ours.encode(Row("r", QUESTION, ANSWER)).ids) <= context
