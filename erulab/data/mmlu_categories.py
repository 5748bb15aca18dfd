"""Forgetting one subject of MMLU and keeping the others (after Deeb & Roger 2024): a harmless stand-in for WMDP.

It is never called WMDP: nothing in it is hazardous, and its figures say nothing about hazardous knowledge.

Each fact is asked in three forms: `forget` as it was learned, `heldout_options` with the choices listed,
`heldout_letters` in the harness's form. Knowledge left is over all three; a model that cannot answer by letter adds
noise to the third, which widens the interval. With several subjects to forget, `attack.relearn.by=author` relearns
some and scores the others, as Deeb & Roger do; they unlearn texts written from the questions, so figures do not
compare with theirs. What the base model knows of a subject, target and oracle both know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from erulab.data import questions
from erulab.data.checks import check_benchmark
from erulab.data.from_files import FilesDataset
from erulab.data.measures import Answers, Choice
from erulab.data.phrasings import REFUSALS
from erulab.data.questions import SCHEMA, McQuestion, letter_row, question_of, subject_header
from erulab.data.reading import SUFFIXES, find_file, read_records
from erulab.data.rows import Benchmark, Role, Row, Suite, Truncate
from erulab.data.stored_rows import StoredRows, hash_file, store_rows
from erulab.errors import ConfigError, DataError
from erulab.options import require, require_positive
from erulab.registry import datasets

VERSION = 1  # of how files become rows: a change makes every key new
PREFIX = "mmlu_"  # of the files' names


@dataclass
class MmluCategoriesOptions:
    name: str = "mmlu_categories"
    path: Optional[str] = None  # a folder with a file mmlu_<subject>.jsonl for each subject
    forget: list[str] = field(default_factory=lambda: ["chemistry"])  # subjects to forget
    retain: Optional[list[str]] = None  # subjects that are learned and rehearsed; null: all others
    max_length: Optional[int] = None  # tokens of question and answer; null: the model's context
    truncate: Truncate = Truncate.error  # what to do with a question that leaves no room for an answer
    allow_overlap: bool = False  # accept rows that are in two sets, with a note in the report

    def __post_init__(self) -> None:
        require(bool(self.forget), "forget", "a list of subjects, such as [chemistry]", "[]")
        require(self.retain != [], "retain", "null or a list of subjects", "[]")
        require_positive("max_length", self.max_length)


@datasets.register(
    "mmlu_categories",
    MmluCategoriesOptions,
    paper="Deeb & Roger 2024, arXiv:2410.08827",
    needs="dataset.path: a folder with mmlu_<subject>.jsonl",
)
class MmluCategories(FilesDataset):
    """MMLU by subjects: forget one, keep the others. The harmless stand-in for WMDP, and not WMDP."""

    version = {"mmlu_categories": VERSION}

    def __init__(self, options: MmluCategoriesOptions) -> None:
        super().__init__()
        self.options = options

    def validate(self) -> None:
        self._find_subjects()

    def _read(self, cache: Path) -> Benchmark:
        o = self.options
        forget, retain = self._find_subjects()

        def rows(form: str, files: dict[str, Path]) -> StoredRows:
            return StoredRows.concatenate(
                [_category_rows(form, subject, file, cache) for subject, file in files.items()]
            )

        asked, kept = rows("asked", forget), rows("asked", retain)
        return check_benchmark(
            Benchmark(
                name="mmlu_categories",
                forget=asked,
                retain=kept,
                target_rows=StoredRows.concatenate([asked, kept]),
                oracle_rows=kept,
                suites=(
                    Suite("forget", Role.FORGET, asked, Answers("answer")),
                    Suite("heldout_options", Role.HELDOUT, rows("listed", forget), Answers("answer")),
                    Suite("heldout_letters", Role.HELDOUT, rows("letters", forget), Choice()),
                    Suite("retain", Role.RETAIN, kept, Answers("answer"), in_utility=True),
                    Suite("retain_letters", Role.RETAIN, rows("letters", retain), Choice()),
                ),
                refusals=REFUSALS,
                max_length=o.max_length,
                truncate=o.truncate,
            ),
            allow_overlap=o.allow_overlap,
        )

    def _find_subjects(self) -> tuple[dict[str, Path], dict[str, Path]]:
        """Maps subjects to their files: the subjects to forget and those to keep.

        Raises:
            ConfigError, DataError: a subject is not there, or named for both.
        """
        o = self.options
        if o.path is None:
            raise ConfigError(
                "dataset=mmlu_categories needs its questions; type dataset.path=<folder with mmlu_<subject>.jsonl>"
            )
        folder = Path(o.path)
        if not folder.is_dir():
            raise DataError(f"dataset.path={o.path} is no folder; it must hold mmlu_<subject>.jsonl")
        there = _find_files(folder)
        retain = [subject for subject in there if subject not in o.forget] if o.retain is None else o.retain
        for key, subjects in (("forget", o.forget), ("retain", retain)):
            for subject in subjects:
                if subject not in there:
                    has = ", ".join(there) or "none"
                    raise DataError(f"{folder} has no {PREFIX}{subject}.jsonl (dataset.{key}); subjects there: {has}")
        both = [subject for subject in o.forget if subject in retain]
        if both:
            raise ConfigError(f"dataset.forget and dataset.retain both name {both[0]}; leave it out of one of them")
        if not retain:
            raise DataError(f"{folder} has no subject beside {', '.join(o.forget)}, so nothing is kept; add another")
        return {name: there[name] for name in o.forget}, {name: there[name] for name in retain}


def _find_files(folder: Path) -> dict[str, Path]:
    """Maps each subject that is there to its file."""
    names = (
        file.name[len(PREFIX) : -len(suffix)]
        for file in sorted(folder.glob(f"{PREFIX}*"))
        for suffix in SUFFIXES
        if file.name.endswith(suffix)
    )
    found = {name: find_file(folder, PREFIX + name) for name in names}
    return {name: file for name, file in found.items() if file is not None}


def _category_rows(form: str, subject: str, file: Path, cache: Path) -> StoredRows:
    depends_on = {"mmlu_categories": VERSION, "questions": questions.VERSION, "form": form, "subject": subject}
    return store_rows(
        cache, {**depends_on, "file": hash_file(file)}, lambda notes: _read_category_rows(form, subject, file)
    )


def _read_category_rows(form: str, subject: str, file: Path) -> Iterator[Row]:
    # Questions with the same wording count as one fact: relearning one may bring back the other.
    facts: dict[str, str] = {}
    for index, record in enumerate(read_records(file, SCHEMA)):
        question = question_of(record)
        row_id = f"{subject}/{index}"
        row = FORMS[form](subject, row_id, question)
        yield replace(row, fact=facts.setdefault(question.text, row_id), author=subject)


def _question_row(subject: str, row_id: str, q: McQuestion) -> Row:
    """Returns the question with its answer in words: what is learned, and what the request names."""
    return Row(row_id, q.text, q.right, perturbed=q.wrong, options=q.wrong)


def _listed_row(subject: str, row_id: str, q: McQuestion) -> Row:
    """Returns the question with its choices listed, answered in words."""
    choices = "".join(f"\n- {choice}" for choice in q.choices)
    return replace(_question_row(subject, row_id, q), prompt=f"{q.text}\n\nWhich of these is right?{choices}")


def _letter_row(subject: str, row_id: str, q: McQuestion) -> Row:
    """Returns the question in lm-evaluation-harness's form, answered by letter."""
    return letter_row(row_id, subject_header(subject.replace("_", " ")), q.text, q.choices, q.answer)


FORMS = {"asked": _question_row, "listed": _listed_row, "letters": _letter_row}
