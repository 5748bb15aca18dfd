"""Multiple-choice questions as running text, in the forms of lm-evaluation-harness: by letter, or by answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erulab.data.reading import Record
from erulab.data.rows import Row
from erulab.errors import DataError

VERSION = 1  # of how a question becomes a prompt: part of the keys of all rows made from questions
LETTERS = "ABCDEFGHIJ"
CHOICES = 4  # of MMLU and of data sets in its form
SCHEMA = '{"question": str, "choices": list of 4 str, "answer": 0 to 3}'


@dataclass(frozen=True)
class McQuestion:
    """One multiple-choice question; `answer` is the place of the right choice."""

    text: str
    choices: tuple[str, ...]
    answer: int

    @property
    def right(self) -> str:
        return self.choices[self.answer]

    @property
    def wrong(self) -> tuple[str, ...]:
        return tuple(choice for i, choice in enumerate(self.choices) if i != self.answer)


def question_of(record: Record) -> McQuestion:
    """Returns the question of a record in MMLU's form.

    Raises:
        DataError: with file and line: a field is missing, or there are not four choices and a place among them.
    """
    choices = record.texts("choices", SCHEMA)
    if len(choices) != CHOICES:
        raise DataError(f"{record.where}: field 'choices' has {len(choices)} choices; expected {SCHEMA}")
    return McQuestion(record.text("question", SCHEMA), choices, place_of(record, "answer", len(choices), SCHEMA))


def place_of(record: Record, field: str, choices: int, schema: str) -> int:
    """Returns a field that names a choice by its place, counted from 0.

    Args:
        record: the record.
        field: name of the field.
        choices: number of choices.
        schema: what the record must look like, for messages.
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


def subject_header(subject: str) -> str:
    """Returns the line before all questions on a subject, in the words of MMLU's authors."""
    return f"The following are multiple choice questions (with answers) about {subject}.\n\n"


def list_choices(choices: Sequence[str]) -> str:
    """Lists the choices with their letters, one per line."""
    return "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def split_letters(choices: Sequence[str], answer: int) -> tuple[str, tuple[str, ...]]:
    """Returns the right letter, as it follows "Answer:", and the wrong ones."""
    every = [f" {letter}" for letter in LETTERS[: len(choices)]]
    return every[answer], tuple(letter for i, letter in enumerate(every) if i != answer)


def format_question(question: str, choices: Sequence[str]) -> str:
    """Returns a question with its lettered choices, up to where the letter goes."""
    return f"{question.strip()}{list_choices(choices)}\nAnswer:"


def format_example(question: str, choices: Sequence[str], answer: int) -> str:
    """Returns a question with its answer, as a few-shot example."""
    return f"{format_question(question, choices)} {LETTERS[answer]}\n\n"


def letter_row(row_id: str, opening: str, question: str, choices: Sequence[str], answer: int) -> Row:
    """Returns a row for `Choice`: the right letter against the wrong ones, after `opening` and the question.

    Args:
        row_id: id and fact of the row.
        opening: header and few-shot examples.
        question: the question's text.
        choices: right and wrong answers, in the order of their letters.
        answer: place of the right one.
    """
    right, wrong = split_letters(choices, answer)
    return Row(row_id, opening + format_question(question, choices), right, options=wrong, fact=row_id, plain=True)


def answer_row(row_id: str, prompt: str, question: McQuestion) -> Row:
    """Returns a row for `Choice`: the right answer against the wrong ones, each as what follows the prompt."""
    wrong = tuple(f" {choice}" for choice in question.wrong)
    return Row(row_id, prompt, f" {question.right}", options=wrong, fact=row_id, plain=True)
