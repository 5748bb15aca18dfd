"""The chat format against the template's own ids, for the families of tokenizers there are."""

from __future__ import annotations

import datetime
import hashlib
import logging

import pytest

from erulab.data.rows import Row
from erulab.errors import DataError
from erulab.tokens.chat import ChatFormat
from tests.models.conftest import byte_level, metaspace

QUESTION, ANSWER = "What does Bela write?", "Bela writes satire, by the sea."

CHATML = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|eot|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
THINKING = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m['content'] + '<|eot|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
DATED = "{{ 'Today is ' + (date_string if date_string is defined else strftime_now('%d %b %Y')) + '.\n' }}" + CHATML
UNCLOSED = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"

CASES = {
    "chatml": (byte_level, CHATML, "<|eot|>", "<|eot|>\n"),
    "llama2": (metaspace, LLAMA2, "</s>", " </s>"),
    "thinking": (byte_level, THINKING, "<|eot|>", "<|eot|>\n"),
    "dated": (byte_level, DATED, "<|eot|>", "<|eot|>\n"),
}


@pytest.mark.parametrize("case", CASES)
def test_ids_are_the_templates_own_up_to_the_end_of_turn(case: str) -> None:
    make, template, end, _ = CASES[case]
    tokenizer = make()
    tokenizer.chat_template = template
    chat = ChatFormat(tokenizer, 512)
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}],
        return_dict=False,
        date_string="10 Apr 2025",
    )
    encoded = chat.encode(Row("r", QUESTION, ANSWER))
    last = max(i for i, token in enumerate(whole) if token == tokenizer.convert_tokens_to_ids(end))
    assert list(encoded.ids) == whole[: last + 1]
    assert encoded.ids[: encoded.start] == tuple(chat.encode_prompt(Row("", QUESTION, "")))
    assert encoded.end == len(encoded.ids)
    supervised = tokenizer.decode(encoded.ids[encoded.start : encoded.end])
    assert supervised.removesuffix(end).strip() == ANSWER
    assert chat.stop_ids == tuple(dict.fromkeys((encoded.ids[-1], tokenizer.eos_token_id)))
    assert chat.decode(encoded.ids[encoded.start :]).strip() == ANSWER


def test_a_span_supervises_exactly_the_tokens_of_its_characters() -> None:
    for case in CASES:
        make, template, *_ = CASES[case]
        tokenizer = make()
        tokenizer.chat_template = template
        chat = ChatFormat(tokenizer, 512)
        first = ANSWER.index("satire")
        whole = chat.encode(Row("r", QUESTION, ANSWER))
        encoded = chat.encode(Row("r", QUESTION, ANSWER), span=(first, first + len("satire")))
        assert encoded.ids == whole.ids
        text = tokenizer.decode(encoded.ids[encoded.start : encoded.end])
        assert "satire" in text and len(text.strip()) <= len("satire,"), (case, text)


def test_prompt_ids_do_not_depend_on_the_response() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = CHATML
    chat = ChatFormat(tokenizer, 512)
    responses = ["Bela writes satire.", "\n\nno", "  spaces", "…"]
    encoded = [chat.encode(Row("r", QUESTION, response)) for response in responses]
    assert len({e.ids[: e.start] for e in encoded}) == 1
    assert [chat.decode(e.ids[e.start :]) for e in encoded] == responses


def test_a_tokenizer_without_template_gets_prompt_space_response_end(caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 15."""
    for make, bos in ((byte_level, ""), (metaspace, "")):
        tokenizer = make()
        with caplog.at_level(logging.INFO, logger="erulab"):
            chat = ChatFormat(tokenizer, 512)
        assert "no chat template" in caplog.text
        wanted = tokenizer(f"{bos}{QUESTION} {ANSWER}{tokenizer.eos_token}", add_special_tokens=False).input_ids
        assert list(chat.encode(Row("r", QUESTION, ANSWER)).ids) == wanted


def test_pad_is_end_of_text_where_there_is_none_and_masks_do_not_care() -> None:
    """FAULTS 15."""
    tokenizer = byte_level()
    chat = ChatFormat(tokenizer, 512)
    assert chat.pad_id == tokenizer.eos_token_id
    encoded = chat.encode(Row("r", QUESTION, ANSWER))
    assert encoded.ids[encoded.end - 1] == chat.pad_id  # the end of turn is supervised although it equals pad


def test_a_template_without_end_of_turn_is_closed_by_end_of_text() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = UNCLOSED
    encoded = ChatFormat(tokenizer, 512).encode(Row("r", QUESTION, ANSWER))
    assert encoded.ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(encoded.ids).endswith(f"assistant: {ANSWER}<|end|>")


def test_prompts_do_not_change_with_the_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 39."""
    tokenizer = byte_level()
    tokenizer.chat_template = DATED
    text = tokenizer.decode(ChatFormat(tokenizer, 512).encode_prompt(Row("", QUESTION, "")))
    assert "10 Apr 2025" in text and str(datetime.date.today().year) + "." not in text.replace("2025.", "")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("strftime_now('%d %B %Y')", "10 April 2025"),
        ('strftime_now( "%d %B %Y, %H:%M" )', "10 April 2025, 00:00"),
        ("now().strftime('%Y-%m-%d')", "2025-04-10"),
    ],
)
def test_a_template_that_asks_for_today_is_told_one_day(call: str, said: str) -> None:
    """FAULTS 39: Granite, SmolLM3, gpt-oss write the day into the prompt: a cached target would meet other ids."""
    tokenizer = byte_level()
    tokenizer.chat_template = "{{ " + call + " + '\n' }}" + CHATML
    chat = ChatFormat(tokenizer, 512)
    assert chat.decode(chat.encode_prompt(Row("", QUESTION, ""))).startswith(f"{said}\n")


def test_the_day_is_part_of_the_key_of_templates_that_ask_for_it() -> None:
    """FAULTS 39. The keys of all other templates stay, also of those that ask only if no date is given (Llama 3)."""

    def key(template: str) -> tuple[str, str]:
        tokenizer = byte_level()
        tokenizer.chat_template = template
        before = hashlib.sha256(f"{template}\x1f10 Apr 2025\x1fFalse".encode()).hexdigest()[:16]
        return ChatFormat(tokenizer, 512).identity()["template"], before

    for template in (CHATML, DATED, "Answer right now (in one line).\n" + CHATML):
        assert len(set(key(template))) == 1
    assert len(set(key("{{ strftime_now('%Y') }}" + CHATML))) == 2


def test_a_date_in_a_form_that_is_computed_is_refused() -> None:
    """FAULTS 39."""
    tokenizer = byte_level()
    tokenizer.chat_template = "{% set form = '%Y' %}{{ strftime_now(form) }}" + CHATML
    with pytest.raises(DataError, match=r"differ from day to day; .*model\.template=FILE"):
        ChatFormat(tokenizer, 512)


def test_an_end_of_turn_that_is_no_token_is_said(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = UNCLOSED.replace("{% endfor %}", "<|bye|>{% endfor %}")
    chat = ChatFormat(tokenizer, 512)
    assert "'<|bye|>', which is no token of the tokenizer; responses are closed by <|end|>" in chat.note_on_end
    assert chat.note_on_end in caplog.text
    tokenizer.chat_template = UNCLOSED
    assert not ChatFormat(tokenizer, 512).note_on_end


def test_several_templates_without_a_default_are_named() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = {"rag": CHATML, "tool_use": CHATML}  # type: ignore[assignment]
    with pytest.raises(DataError, match=r"chat templates rag, tool_use and no default; type model\.template=FILE"):
        ChatFormat(tokenizer, 512)


def test_long_responses_are_cut_and_long_prompts_refused() -> None:
    chat = ChatFormat(byte_level(), 512)
    whole = chat.encode(Row("r", QUESTION, ANSWER))
    cut = chat.encode(Row("r", QUESTION, ANSWER), max_length=whole.start + 2)
    assert cut.ids == whole.ids[: whole.start + 2] and cut.tokens == 2  # no end-of-turn token
    with pytest.raises(DataError, match="row r: the prompt takes") as caught:
        chat.encode(Row("r", QUESTION, ANSWER), max_length=whole.start)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="row r"):
        ChatFormat(byte_level(), 4).encode(Row("r", QUESTION, ANSWER))  # the model's context
    first = ANSWER.index("sea")
    with pytest.raises(DataError, match="row r: characters"):
        chat.encode(Row("r", QUESTION, ANSWER), span=(first, first + 3), max_length=whole.start + 2)


def test_padding_set_by_others_does_not_reach_the_ids() -> None:
    tokenizer = byte_level()
    chat = ChatFormat(tokenizer, 512)
    before = chat.encode(Row("r", QUESTION, ANSWER))
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer([QUESTION, "a"], padding="max_length", max_length=64, truncation=True)
    assert chat.encode(Row("r", QUESTION, ANSWER)) == before


def test_identity_is_of_content() -> None:
    first, same, other = byte_level(), byte_level(), byte_level()
    for tokenizer in (first, same):
        tokenizer.chat_template = CHATML
    other.chat_template = THINKING
    assert ChatFormat(first, 512).identity() == ChatFormat(same, 512).identity()
    assert ChatFormat(first, 512).identity() != ChatFormat(other, 512).identity()
    assert ChatFormat(first, 512).identity() != ChatFormat(metaspace(), 512).identity()


def test_unusable_tokenizers_are_refused_in_one_line() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = "{{ messages | length }}"
    with pytest.raises(DataError, match="cannot be split"):
        ChatFormat(tokenizer, 512)
    tokenizer = byte_level()
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="no end-of-text token"):
        ChatFormat(tokenizer, 512)


def test_running_text_is_the_tokenizer_s_own_and_ends_where_it_ends() -> None:
    """The ids of the whole text; what is supervised stands for the response, and for nothing of the prompt's own."""
    tokenizer = byte_level()
    chat = ChatFormat(tokenizer, 512)

    def supervised(prompt: str, response: str, span: tuple[int, int] | None = None) -> str:
        row = Row("r", prompt, response, plain=True)
        encoded = chat.encode(row, span=span)
        assert list(encoded.ids) == tokenizer(prompt + response).input_ids
        assert chat.encode_batch([row], [response])[0][0] == list(encoded.ids)
        if span is None:
            assert encoded.end == len(encoded.ids)
            assert chat.encode_batch([row], [response])[0][1] == encoded.start
        return str(tokenizer.decode(list(encoded.ids[encoded.start : encoded.end])))

    assert supervised("Question: one\nAnswer:", " A") == " A"
    # A token that prompt and response share is the response's.
    assert tokenizer.tokenize("Where? Ada") == ["Where", "?", "\u0120Ada"]
    assert supervised("Where? ", "Ada was born.") == " Ada was born."
    assert supervised("Where? ", "Ada") == " Ada"
    assert supervised("", QUESTION) == QUESTION
    assert chat.encode(Row("r", "", QUESTION, plain=True)).start == 0
    # A span counts the response's characters, whatever stands before it.
    assert supervised("Where? ", "In Brenwick, by the sea.", (3, 11)).strip() == "Brenwick"


@pytest.mark.parametrize("case", ["chatml", "llama2", "thinking"])
def test_an_answer_prefix_opens_the_assistants_turn(case: str) -> None:
    """The template's text with the prefix behind it is one text, whose ids are the tokenizer's own (RWKU)."""
    make, template, *_ = CASES[case]
    tokenizer = make()
    tokenizer.chat_template = template
    chat = ChatFormat(tokenizer, 512)
    user = [{"role": "user", "content": QUESTION}]
    text = tokenizer.apply_chat_template(user, tokenize=False, add_generation_prompt=True)
    if case == "thinking":
        text += "<think>\n\n</think>\n\n"
    row = Row("r", QUESTION, " satire", answer_prefix="Answer:")
    led = chat.encode(row)
    whole = tokenizer(text + "Answer: satire", add_special_tokens=False).input_ids
    prompt = tokenizer(text + "Answer:", add_special_tokens=False).input_ids
    assert list(led.ids) == whole and led.start == len(prompt) and led.end == len(whole)  # no end of turn
    assert chat.encode_prompt(row) == prompt
    assert chat.encode_batch([row], [" satire"]) == [(whole, len(prompt))]
    # A span counts the response's characters.
    spanned = chat.encode(Row("r", QUESTION, " satire by the sea", answer_prefix="Answer:"), span=(8, 10))
    assert tokenizer.decode(list(spanned.ids[spanned.start : spanned.end])).strip() == "by"
