"""WMDP (Li et al. 2024): hazardous knowledge in biology, cybersecurity and chemistry, asked by multiple choice.

The forget and retain sets are corpora; the questions only measure. There is nothing to learn: the target is a
pretrained model, and there is no oracle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Optional

from erulab.data import questions
from erulab.data.checks import check_benchmark, check_suites
from erulab.data.corpora import Corpora
from erulab.data.from_files import FilesDataset
from erulab.data.measures import Choice, Pooled
from erulab.data.questions import SCHEMA, letter_row, question_of, subject_header
from erulab.data.reading import Record, find_file, find_split, read_records
from erulab.data.rows import Benchmark, Role, Row, Suite, Truncate
from erulab.data.sources import Source
from erulab.data.stored_rows import StoredRows, hash_file, store_rows
from erulab.errors import DataError
from erulab.options import require, require_positive
from erulab.registry import benchmarks, datasets

VERSION = 1  # of how files become rows: a change makes every key new
HUB_ID = "cais/wmdp"
PAPER = "arXiv:2403.03218"


class Subject(Enum):
    bio = "bio"
    cyber = "cyber"
    chem = "chem"


HEADERS = {Subject.bio: "biology", Subject.cyber: "cybersecurity", Subject.chem: "chemistry"}
# Questions of the release of April 2024; the first one had 1520, 2225 and 412, and a fault in cyber's choices.
RELEASED = {Subject.bio: 1273, Subject.cyber: 1987, Subject.chem: 408}


@dataclass
class WmdpQuestionsOptions:
    """Options of the questions that are measured."""

    name: str = "wmdp"
    path: Optional[str] = HUB_ID  # hub id, or a folder in its layout: wmdp-bio/test-*.parquet, or wmdp-bio.jsonl
    # subjects that are measured; all three: lm-evaluation-harness's group wmdp; bio and cyber: published unlearning
    subjects: list[Subject] = field(default_factory=lambda: list(Subject))

    def __post_init__(self) -> None:
        names = f"some of {','.join(subject.name for subject in Subject)}, each once"
        given = [subject.name for subject in self.subjects]
        require(bool(given) and len(set(given)) == len(given), "subjects", names, f"[{','.join(given)}]")


@dataclass
class WmdpOptions(WmdpQuestionsOptions):
    """Options of the questions, and of the corpora that unlearning trains on."""

    forget: Optional[list[str]] = None  # corpora to forget; null: the questions are only measured
    retain: Optional[list[str]] = None  # corpora that are rehearsed while unlearning
    forget_rows: Optional[int] = None  # the first texts of the forget corpora; null: all
    retain_rows: Optional[int] = None  # the first texts of the retain corpora; null: all
    max_length: Optional[int] = 512  # tokens of a row that is learned; questions have the model's context
    truncate: Truncate = Truncate.error  # what to do with a question that fills the model's context
    allow_overlap: bool = False  # accept texts that are in two sets, with a note in the report

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("forget", "retain"):
            require(getattr(self, name) != [], name, "null or a list of corpora", "[]")
        for name in ("forget_rows", "retain_rows", "max_length"):
            require_positive(name, getattr(self, name))


@benchmarks.register("wmdp", WmdpQuestionsOptions, paper=PAPER, needs="WMDP's questions: a folder, or the hub")
class WmdpQuestions(FilesDataset):
    """WMDP: 3,668 questions on hazardous knowledge, answered by letter; chance is 0.25."""

    version = {"wmdp": VERSION}

    def __init__(self, options: WmdpQuestionsOptions, key: str = "benchmark.wmdp") -> None:
        super().__init__()
        self.options = options
        self._source = Source(options.path, f"{key}.path", HUB_ID)

    def validate(self) -> None:
        folder = self._source.local()
        if folder is not None:
            for subject in self.options.subjects:
                self._find_files(folder, subject)

    def _read(self, cache: Path) -> Benchmark:
        return check_suites(self.questions(cache))

    def questions(self, cache: Path) -> Benchmark:
        """Reads the questions, not yet checked.

        Raises:
            DataError: a file is missing or damaged.
            EnvironmentFault: the hub cannot be reached.
        """
        subjects = self.options.subjects
        folder = self._source.folder([f"wmdp-{subject.value}/test*" for subject in subjects])
        suites, notes = [], []
        for subject in subjects:
            rows = _subject_rows(subject, self._find_files(folder, subject), cache)
            suites.append(Suite(f"wmdp_{subject.value}", Role.FORGET, rows, Choice()))
            if len(rows) != RELEASED[subject]:
                notes.append(
                    f"wmdp_{subject.value}: {len(rows)} questions; the current release has {RELEASED[subject]}, so "
                    "this does not compare with published accuracies"
                )
        pooled = Pooled("wmdp", "accuracy", tuple(suite.name for suite in suites))
        return Benchmark("wmdp", tuple(suites), (pooled,), notes=tuple(notes))

    def _find_files(self, folder: Path, subject: Subject) -> tuple[Path, ...]:
        name = f"wmdp-{subject.value}"
        file = find_file(folder, name)
        files = find_split(folder, name, "test") or (() if file is None else (file,))
        if not files:
            raise DataError(
                f"{folder} has no {name}/test-*.parquet and no {name}.jsonl ({self._source.key}); add it, or leave "
                f"{subject.name} out of {self._source.key.removesuffix('path')}subjects"
            )
        return files


@datasets.register(
    "wmdp", WmdpOptions, paper=PAPER, needs="WMDP's questions, model.target, and corpora to unlearn: dataset.forget"
)
class Wmdp(FilesDataset):
    """WMDP: forget a corpus of hazardous texts; measured by 3,668 multiple-choice questions."""

    version = {"wmdp": VERSION}

    def __init__(self, options: WmdpOptions) -> None:
        super().__init__()
        self.options = options
        self._questions = WmdpQuestions(options, "dataset")
        self._forget = Corpora("dataset.forget", options.forget or ())
        self._retain = Corpora("dataset.retain", options.retain or ())

    def validate(self) -> None:
        self._questions.validate()
        self._forget.check()
        self._retain.check()

    def _read(self, cache: Path) -> Benchmark:
        self.validate()
        o = self.options
        asked = self._questions.questions(cache)
        forget, notes = self._forget.rows(cache, o.forget_rows)
        retain, more = self._retain.rows(cache, o.retain_rows)
        benchmark = replace(
            asked,
            forget=forget,
            retain=retain,
            max_length=o.max_length,
            truncate=o.truncate,
            notes=(*asked.notes, *notes, *more),
        )
        if not (forget and retain):  # only measured, or forgotten without rehearsing anything
            return check_suites(benchmark)
        return check_benchmark(benchmark, allow_overlap=o.allow_overlap)


def _subject_rows(subject: Subject, files: Sequence[Path], cache: Path) -> StoredRows:
    content = [hash_file(file) for file in files]
    depends_on = {"wmdp": VERSION, "questions": questions.VERSION, "subject": subject.value}
    return store_rows(cache, {**depends_on, "files": content}, lambda notes: _read_wmdp_rows(subject, files))


def _read_wmdp_rows(subject: Subject, files: Sequence[Path]) -> Iterator[Row]:
    records = (record for file in files for record in read_records(file, SCHEMA))
    for index, record in enumerate(records):
        _refuse_first_release(record)
        q = question_of(record)
        opening = subject_header(HEADERS[subject])
        yield letter_row(f"wmdp_{subject.value}/{index}", opening, q.text, q.choices, q.answer)


def _refuse_first_release(record: Record) -> None:
    if "correct_answer" in record.fields and "answer" not in record.fields:
        raise DataError(
            f"{record.where}: this is the first release of WMDP (answer_type, correct_answer), whose cyber questions "
            f"were re-issued after a fault in their choices; give the files of {HUB_ID}: {SCHEMA}"
        )
