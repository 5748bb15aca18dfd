"""Names of forgotten authors, and prompts that hold one."""

from __future__ import annotations

from erulab.data.rows import Row
from erulab.evaluation.figures.naming import forgotten_names, names_one_of


def row(prompt: str, author: str, response: str = "r") -> Row:
    return Row(prompt, prompt, response, author=author)


def test_an_author_s_own_name_counts_word_by_word() -> None:
    names = forgotten_names([row("Where was Bemi Tokan born?", "Bemi Tokan")])
    assert names == {"Bemi", "Tokan"}
    assert names_one_of("What does Bemi Rudas write?", names)  # a shared first name
    assert names_one_of("Tell me Tokan's hobby.", names)
    assert not names_one_of("Which bemi is it?", names) and not names_one_of("Where is Bemison?", names)


def test_a_subject_of_running_text_is_found_in_the_text() -> None:
    rows = [row("", "1_Stephen_King", "Stephen King wrote It."), row("", "nobody", "A text.")]
    assert forgotten_names(rows) == {"Stephen", "King"}


def test_authors_that_are_numbers_are_named_by_their_questions() -> None:
    prompts = [
        "What is the full name of the author born in Kuwait City?",
        "Which genre does Basil Al-Kuwaiti write?",
        "Did Basil Al-Kuwaiti win the Pulitzer?",
        "Who inspired Basil Al-Kuwaiti's novels?",
    ]
    names = forgotten_names([row(prompt, "author/199") for prompt in prompts])
    assert names == {"Basil", "Al-Kuwaiti"}
    assert names_one_of("Has Basil Mahfouz a sister?", names)


def test_no_author_no_names() -> None:
    assert forgotten_names([row("Where was Bemi born?", "")]) == frozenset()
    assert forgotten_names([row("Where was Bemi born?", "author/1")]) == frozenset()  # one question tells nothing
    assert not names_one_of("Where was Bemi born?", frozenset())


def test_names_in_scripts_without_capitals() -> None:
    """FAULTS 38."""
    names = forgotten_names([row("艾达·罗素在哪里出生？", "艾达·罗素"), row("आदा क्या लिखती है?", "आदा")])
    assert names == {"艾达", "罗素", "आदा"}
    assert names_one_of("请问艾达写了什么？", names) and names_one_of("आदा कहाँ है?", names)
    assert not names_one_of("贝拉写了什么？", names) and not names_one_of("आदाब", names)
