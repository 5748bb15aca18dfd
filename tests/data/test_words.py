"""Words of texts in any script, by hand."""

from __future__ import annotations

import re

import pytest

from erulab.data.words import (
    has_words,
    held_names,
    holds_words,
    is_latin,
    split_words,
    split_written,
    stands_alone_pattern,
    written_words,
)

# FAULTS 38.
WORDS = {
    "Ada's mill, 1947!": ["ada", "s", "mill", "1947"],
    "艾达在织布。": ["艾", "达", "在", "织", "布"],
    "エイダはパンを焼く。": ["エ", "イ", "ダ", "は", "パ", "ン", "を", "焼", "く"],
    "हिन्दी में लिखा।": ["हिन्दी", "में", "लिखा"],
    "เธอผ้า": ["เ", "ธ", "อ", "ผ้", "า"],
    "Ада ткёт полотно.": ["ада", "ткёт", "полотно"],
    "Η Άντα υφαίνει. ΟΔΟΣ": ["η", "άντα", "υφαίνει", "οδοσ"],
    "كتبت آدا روايةً": ["كتبت", "آدا", "روايةً"],
    "مي\u200cخواهم": ["ميخواهم"],
    "ＡＤＡ 在 5G 网": ["ada", "在", "5g", "网"],
    "🙂🙂 ∑ = ∫ ?!": [],
}


@pytest.mark.parametrize("text", WORDS)
def test_words_by_hand(text: str) -> None:
    assert split_words(text) == WORDS[text]
    assert has_words(text) == bool(WORDS[text])


def test_equal_letters_in_other_unicode_forms_are_equal_words() -> None:
    assert split_words("Ame\u0301lie") == split_words("AMÉLIE") == ["amélie"]


def test_a_text_of_one_script_among_words_of_another() -> None:
    assert (
        is_latin("José wrote 1984.") and is_latin("1947") and is_latin("The novel Війна і мир is by a Russian author.")
    )
    assert not is_latin("OpenAI 发布了") and not is_latin("1947年") and not is_latin("Ада") and not is_latin("É")


def test_written_words_are_those_between_spaces_and_characters_of_other_scripts() -> None:
    assert written_words("It's  Ada, (here)!\n") == ["It's", "Ada,", "(here)!"]
    assert written_words("艾达。ok 在") == ["艾", "达", "。ok", "在"]
    for text in ("  艾达。x", "Ada", " ผ้าx", "é"):
        assert "".join(split_written(text)) == text


def test_standing_alone() -> None:
    assert re.search(stands_alone_pattern("art"), "an art.") and not re.search(stands_alone_pattern("art"), "started")
    assert re.search(stands_alone_pattern("艾达"), "问艾达在哪里")


def test_names_and_runs_of_words() -> None:
    names = {"Tokan", "Bemi", "艾达", "अमेलिया", "अम"}
    assert held_names("Tokan's hobby", names) == {"Tokan"} and held_names("Bemison", names) == set()
    assert held_names("艾达在哪里出生", names) == {"艾达"} and held_names("अमेलिया कहाँ है", names) == {"अमेलिया"}
    assert holds_words(["a", "b", "c"], ["b", "c"]) and not holds_words(["a"], []) and not holds_words(["a"], ["b"])
