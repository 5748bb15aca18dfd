"""Several turns and a system turn: ids are the template's own, in evaluation, unlearning and truncation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from erulab.data.measures import Answers
from erulab.data.rows import Benchmark, Role, Row, Suite, Truncate
from erulab.errors import DataError
from erulab.tokens.chat import ChatFormat
from erulab.tokens.encoder import Encoder
from erulab.tokens.insertion import InsertingChatFormat, Place
from erulab.tokens.templates import TEMPLATES, PromptOverrides
from erulab.tokens.truncation import truncate_to_context
from tests.models.conftest import byte_level
from tests.tokens.test_chat import CASES, CHATML

ROW = Row(
    "r",
    "And who is Bela?",
    "Bela is a baker.",
    history=(("Who is Ada?", "Ada is a weaver."), ("Is she old?", "She is not.")),
    system="Answer in one sentence.",
)
MESSAGES = [
    {"role": "system", "content": ROW.system},
    {"role": "user", "content": "Who is Ada?"},
    {"role": "assistant", "content": "Ada is a weaver."},
    {"role": "user", "content": "Is she old?"},
    {"role": "assistant", "content": "She is not."},
    {"role": "user", "content": ROW.prompt},
]


def chatml(context: int = 512, system: str | None = None) -> ChatFormat:
    tokenizer = byte_level()
    tokenizer.chat_template = CHATML
    return ChatFormat(tokenizer, context, PromptOverrides(system=system))


@pytest.mark.parametrize("case", ["chatml", "thinking", "dated"])
def test_ids_are_the_templates_own(case: str) -> None:
    make, template, *_ = CASES[case]
    tokenizer = make()
    tokenizer.chat_template = template
    whole = [*MESSAGES, {"role": "assistant", "content": ROW.response}]
    wanted = list(tokenizer.apply_chat_template(whole, return_dict=False, date_string="10 Apr 2025"))
    encoded = ChatFormat(tokenizer, 512).encode(ROW)
    assert wanted[: len(encoded.ids)] == list(encoded.ids)
    assert ROW.response in tokenizer.decode(list(encoded.ids[encoded.start :]))
    assert "Ada" not in tokenizer.decode(list(encoded.ids[encoded.start :]))


def test_only_the_last_answer_is_supervised() -> None:
    chat = chatml()
    encoded = chat.encode(ROW)
    assert chat.decode(encoded.ids[encoded.start : encoded.end]) == ROW.response
    assert list(encoded.ids[: encoded.start]) == chat.encode_prompt(ROW)
    assert chat.encode_batch([ROW], [ROW.response]) == [(list(encoded.ids), encoded.start)]
    wrong = chat.encode(ROW, "Bela is a nurse.")
    assert wrong.ids[: wrong.start] == encoded.ids[: encoded.start]


def test_the_rows_system_turn_wins() -> None:
    plain = dataclasses.replace(ROW, system="")
    assert chatml(system=ROW.system).encode(plain) == chatml().encode(ROW) == chatml(system="Else.").encode(ROW)
    assert chatml().encode(plain) != chatml().encode(ROW)


def test_a_template_that_shows_no_system_turn_refuses_one() -> None:
    chat = ChatFormat(byte_level(), 512, PromptOverrides(TEMPLATES["plain"]))
    with pytest.raises(DataError, match="shows no system turn"):
        chat.encode(ROW)
    turns = dataclasses.replace(ROW, system="")
    assert "Ada is a weaver." in chat.decode(chat.encode_prompt(turns))


def test_a_template_that_raises_names_its_reason() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
    )
    with pytest.raises(DataError, match="System role not supported"):
        ChatFormat(tokenizer, 512).encode(ROW)


def test_stored_ids_are_those_of_the_chat_format(tmp_path: Path) -> None:
    chat = chatml()
    assert list(Encoder(chat, None, tmp_path).encode((ROW,))) == [chat.encode(ROW)]


def test_inserted_ids_stand_behind_the_last_user_turn() -> None:
    chat = chatml()
    ours = InsertingChatFormat(chat, lambda prompt: [5, 6], Place.user_turn)
    prompt = ours.encode_prompt(ROW)
    place = prompt.index(5)
    assert prompt[place : place + 2] == [5, 6] and prompt[:place] + prompt[place + 2 :] == chat.encode_prompt(ROW)
    assert chat.decode(prompt[:place]).endswith(ROW.prompt)


def test_truncation_drops_the_earliest_turns_before_words(tmp_path: Path) -> None:
    chat = chatml()
    lengths = [len(chat.encode_prompt(dataclasses.replace(ROW, history=ROW.history[i:]))) for i in range(3)]
    assert lengths[0] > lengths[1] > lengths[2]
    suite = Suite("forget", Role.FORGET, (ROW,), Answers())
    for i, length in enumerate(lengths):
        benchmark = Benchmark("own", (suite,), forget=(ROW,), max_length=length + 1, truncate=Truncate.left)
        made = truncate_to_context(benchmark, Encoder(chat, length + 1, tmp_path), tmp_path)
        assert made.forget[0] == dataclasses.replace(ROW, history=ROW.history[i:])
    benchmark = dataclasses.replace(benchmark, max_length=lengths[2] - 1)
    made = truncate_to_context(benchmark, Encoder(chat, lengths[2] - 1, tmp_path), tmp_path)
    assert made.forget[0].history == () and ROW.prompt.endswith(made.forget[0].prompt) and made.forget[0].system
