"""Multiple-choice questions as running text, in the forms of lm-evaluation-harness: by letter, or by answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erulab.data.reading import Record
from erulab.data.rows import Row
from erulab.errors import DataError

VERSION = 1  # of how a question becomes a prompt: part of the keys of all rows made here
LETTERS = "ABCDEFGHIJ"
CHOICES = 4  # of MMLU and of what follows it
SCHEMA = '{"question": str, "choices": list of 4 str, "answer": 0 to 3}'


@dataclass(frozen=True)
class Question:
    """One question; `answer` is the place of the right choice."""

    text: str
    choices: tuple[str, ...]
    answer: int

    @property
    def right(self) -> str:
        return self.choices[self.answer]

    @property
    def wrong(self) -> tuple[str, ...]:
        return tuple(choice for i, choice in enumerate(self.choices) if i != self.answer)


def question_of(record: Record) -> Question:
    """A record in MMLU's form.

    Raises:
        DataError: with file and line: a field is missing, there are not four choices, or the answer is none of them.
    """
    choices = record.texts("choices", SCHEMA)
    if len(choices) != CHOICES:
        raise DataError(f"{record.where}: field 'choices' has {len(choices)} choices; expected {SCHEMA}")
    return Question(record.text("question", SCHEMA), choices, place_of(record, "answer", len(choices), SCHEMA))


def place_of(record: Record, field: str, choices: int, schema: str) -> int:
    """A field that names one of so many choices by its place.

    Raises:
        DataError: it is no whole number from 0 on, or beyond the choices.
    """
    place = record.fields.get(field)
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < choices:
        raise DataError(
            f"{record.where}: field {field!r} must be the place of a choice, 0 to {choices - 1}, got {place!r}; "
            f"expected {schema}"
        )
    return place


def header(subject: str) -> str:
    """What stands before all questions on a subject, in the words of MMLU's authors."""
    return f"The following are multiple choice questions (with answers) about {subject}.\n\n"


def lettered(choices: Sequence[str]) -> str:
    """The choices with their letters, a line each."""
    return "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def letters(choices: Sequence[str], answer: int) -> tuple[str, tuple[str, ...]]:
    """The right letter, as it follows "Answer:", and the others."""
    every = [f" {letter}" for letter in LETTERS[: len(choices)]]
    return every[answer], tuple(letter for i, letter in enumerate(every) if i != answer)


def asked(question: str, choices: Sequence[str]) -> str:
    """A question with its lettered choices, up to where the letter goes."""
    return f"{question.strip()}{lettered(choices)}\nAnswer:"


def solved(question: str, choices: Sequence[str], answer: int) -> str:
    """A question with its answer, as a few-shot example."""
    return f"{asked(question, choices)} {LETTERS[answer]}\n\n"


def letter_row(row_id: str, opening: str, question: str, choices: Sequence[str], answer: int) -> Row:
    """A row for `Choice`: the right letter against the others, after `opening` (header, examples) and the question."""
    right, wrong = letters(choices, answer)
    return Row(row_id, opening + asked(question, choices), right, options=wrong, fact=row_id, plain=True)


def answer_row(row_id: str, prompt: str, question: Question) -> Row:
    """A row for `Choice`: the right answer against the others, as what follows the prompt."""
    wrong = tuple(f" {choice}" for choice in question.wrong)
    return Row(row_id, prompt, f" {question.right}", options=wrong, fact=row_id, plain=True)
