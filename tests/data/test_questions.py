"""The prompt of lm-evaluation-harness's mmlu and wmdp tasks, letter by letter."""

from __future__ import annotations

from erulab.data.questions import header, letter_row, solved


def test_the_prompt_is_the_harness_s() -> None:
    opening = header("biology") + solved("What is 1+1?", ["1", "2", "3", "4"], 1)
    row = letter_row("bio/7", opening, " Which one? ", ["this", "that"], 1)
    assert row.prompt == (
        "The following are multiple choice questions (with answers) about biology.\n\n"
        "What is 1+1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n\n"
        "Which one?\nA. this\nB. that\nAnswer:"
    )
    assert (row.response, row.options, row.plain) == (" B", (" A",), True)
