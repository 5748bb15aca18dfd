"""MMLU (Hendrycks et al. 2021): questions on 57 subjects, answered by letter; lm-evaluation-harness's task mmlu."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from erulab.data import questions
from erulab.data.checks import check_suites
from erulab.data.from_files import FilesDataset
from erulab.data.measures import Choice, Pooled
from erulab.data.questions import SCHEMA, format_example, letter_row, question_of, subject_header
from erulab.data.reading import Record, find_split, read_records
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.data.sources import Source
from erulab.data.stored_rows import StoredRows, hash_file, store_rows
from erulab.errors import DataError
from erulab.options import require, require_not_negative
from erulab.registry import benchmarks

VERSION = 1  # of how files become rows: a change makes every key new
HUB_ID = "cais/mmlu"
ALL = "all"  # the hub's configuration with every subject; a field names each question's
EXAMPLES = "dev"  # the split that few-shot examples come from

# Subjects of each group in lm-evaluation-harness.
GROUPS = {
    "stem": (
        "abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science "
        "college_mathematics college_physics computer_security conceptual_physics electrical_engineering "
        "elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science "
        "high_school_mathematics high_school_physics high_school_statistics machine_learning"
    ),
    "humanities": (
        "formal_logic high_school_european_history high_school_us_history high_school_world_history international_law "
        "jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law "
        "world_religions"
    ),
    "social_sciences": (
        "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
        "high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations "
        "security_studies sociology us_foreign_policy"
    ),
    "other": (
        "business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing "
        "medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology"
    ),
}
SUBJECTS = tuple(sorted(subject for group in GROUPS.values() for subject in group.split()))


@dataclass
class MmluOptions:
    name: str = "mmlu"
    path: Optional[str] = HUB_ID  # hub id, or a folder in its layout: all/test-*.parquet, or <subject>/test-*.parquet
    subjects: Optional[list[str]] = None  # null: every subject there is
    shots: int = 0  # solved questions before each, from the dev split; the harness's default is none

    def __post_init__(self) -> None:
        require_not_negative("shots", self.shots)
        unknown = [subject for subject in self.subjects or () if subject not in SUBJECTS]
        known = f"null or some of MMLU's {len(SUBJECTS)} subjects ({', '.join(SUBJECTS[:3])}, ...)"
        require(self.subjects != [] and not unknown, "subjects", known, f"[{','.join(unknown)}]")


@benchmarks.register("mmlu", MmluOptions, paper="arXiv:2009.03300", needs="MMLU's questions: a folder, or the hub")
class Mmlu(FilesDataset):
    """MMLU: 14,042 questions on 57 subjects, answered by letter; chance is 0.25."""

    version = {"mmlu": VERSION}

    def __init__(self, options: MmluOptions) -> None:
        super().__init__()
        self.options = options
        self._source = Source(options.path, "benchmark.mmlu.path", HUB_ID)
        self._wanted = options.subjects or SUBJECTS

    def validate(self) -> None:
        folder = self._source.local()
        if folder is not None:
            self._find_files(folder, "test")
            if self.options.shots:
                self._find_files(folder, EXAMPLES)

    def _read(self, cache: Path) -> Benchmark:
        shots, wanted = self.options.shots, self._wanted
        # One file holds them all; one file per subject is fetched where only a few are wanted.
        configs = wanted if self.options.subjects else (ALL,)
        splits = ("test", EXAMPLES) if shots else ("test",)
        folder = self._source.folder([f"{config}/{split}*" for config in configs for split in splits])
        tests, examples = self._find_files(folder, "test"), self._find_files(folder, EXAMPLES) if shots else {}
        # Under its subject's name: the content of a file of one subject does not name the subject.
        content = {
            split: {name: [hash_file(file) for file in parts] for name, parts in files.items()}
            for split, files in (("test", tests), (EXAMPLES, examples))
        }

        def table(group: str, subjects: Collection[str]) -> StoredRows:
            depends_on = {
                "mmlu": VERSION,
                "questions": questions.VERSION,
                "group": group,
                "subjects": sorted(subjects),
                "shots": shots,
                "files": content,
            }
            return store_rows(cache, depends_on, lambda notes: _read_mmlu_rows(tests, subjects, openings))

        openings, shown = _read_openings(examples, wanted, shots)
        suites = []
        for group, listed in GROUPS.items():
            rows = table(group, [subject for subject in listed.split() if subject in wanted])
            if rows:
                suites.append(Suite(f"mmlu_{group}", Role.RETAIN, rows, Choice()))
        found = {row.id.split("/")[1] for suite in suites for row in suite.rows}
        missing = [subject for subject in wanted if subject not in found]
        if self.options.subjects and missing:
            raise DataError(f"{folder}: no test questions on {', '.join(missing)} (benchmark.mmlu.subjects)")
        few = min(sorted(found), key=lambda subject: shown[subject], default=None)
        if few is not None and shown[few] < shots:
            raise DataError(
                f"benchmark.mmlu.shots={shots}, but the {EXAMPLES} split has {shown[few]} questions on {few}; type "
                f"benchmark.mmlu.shots={shown[few]}, or leave {few} out of benchmark.mmlu.subjects"
            )
        notes = (f"mmlu: {len(found)} of {len(SUBJECTS)} subjects",) if len(found) < len(SUBJECTS) else ()
        pooled = Pooled("mmlu", "accuracy", tuple(suite.name for suite in suites))
        return check_suites(Benchmark("mmlu", tuple(suites), (pooled,), notes=notes))

    def _find_files(self, folder: Path, split: str) -> dict[str, tuple[Path, ...]]:
        """Maps configurations to their files: the one that holds all subjects, or one per subject that is there.

        Raises:
            DataError: there are none.
        """
        every = find_split(folder, ALL, split)
        if every:
            return {ALL: every}
        found = {subject: files for subject in self._wanted if (files := find_split(folder, subject, split))}
        if not found:
            raise DataError(
                f"{folder} has no {ALL}/{split}-*.parquet and no <subject>/{split}-*.parquet or .jsonl "
                f"({self._source.key}); type {self._source.key}={HUB_ID}"
            )
        return found


def _read_subject_questions(
    files: dict[str, tuple[Path, ...]], subjects: Collection[str]
) -> Iterator[tuple[str, Record]]:
    """Yields the questions on these subjects, each with its subject.

    Args:
        files: configuration -> its files.
    Raises:
        DataError: a question names a subject that MMLU does not have.
    """
    for config, parts in files.items():
        if config != ALL and config not in subjects:
            continue
        for record in (record for part in parts for record in read_records(part, SCHEMA)):
            subject = record.text("subject", f'"subject" and {SCHEMA}') if config == ALL else config
            if subject not in SUBJECTS:
                raise DataError(
                    f"{record.where}: MMLU has no subject {subject!r}; its subjects have names such as {SUBJECTS[0]}"
                )
            if subject in subjects:
                yield subject, record


def _read_openings(
    files: dict[str, tuple[Path, ...]], subjects: Collection[str], shots: int
) -> tuple[dict[str, str], Counter[str]]:
    """Reads the text before each subject's questions: the header, then up to `shots` examples with their answers.

    Args:
        files: of the examples, configuration -> files.
    Returns:
        Subject -> text, and subject -> number of examples in it.
    """
    openings = {subject: subject_header(subject.replace("_", " ")) for subject in subjects}
    shown: Counter[str] = Counter()
    for subject, record in _read_subject_questions(files, subjects):
        if shown[subject] < shots:
            q = question_of(record)
            openings[subject] += format_example(q.text, q.choices, q.answer)
            shown[subject] += 1
    return openings, shown


def _read_mmlu_rows(
    files: dict[str, tuple[Path, ...]], subjects: Collection[str], openings: dict[str, str]
) -> Iterator[Row]:
    counts: Counter[str] = Counter()
    for subject, record in _read_subject_questions(files, subjects):
        q = question_of(record)
        yield letter_row(f"mmlu/{subject}/{counts[subject]}", openings[subject], q.text, q.choices, q.answer)
        counts[subject] += 1
