"""Multiple-choice questions as running text, answered by the letter that follows: the form of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Sequence

from erulab.data.rows import Row

LETTERS = "ABCDEFGHIJ"


def header(subject: str) -> str:
    """What stands before all questions on a subject, in the words of MMLU's authors."""
    return f"The following are multiple choice questions (with answers) about {subject}.\n\n"


def asked(question: str, choices: Sequence[str]) -> str:
    """A question with its lettered choices, up to where the letter goes."""
    options = "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, choices, strict=False))
    return f"{question.strip()}\n{options}Answer:"


def solved(question: str, choices: Sequence[str], answer: int) -> str:
    """A question with its answer, as a few-shot example."""
    return f"{asked(question, choices)} {LETTERS[answer]}\n\n"


def letter_row(row_id: str, opening: str, question: str, choices: Sequence[str], answer: int) -> Row:
    """A row for `Choice`: the right letter against the others, after `opening` (header, examples) and the question."""
    letters = [f" {letter}" for letter in LETTERS[: len(choices)]]
    wrong = tuple(letter for i, letter in enumerate(letters) if i != answer)
    return Row(row_id, opening + asked(question, choices), letters[answer], options=wrong, fact=row_id, plain=True)
