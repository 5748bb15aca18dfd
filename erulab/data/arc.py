"""ARC (Clark et al. 2018): science questions, answered in words; lm-evaluation-harness's arc_easy and arc_challenge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Optional

from erulab.data import questions
from erulab.data.checks import check_suites
from erulab.data.from_files import FilesDataset
from erulab.data.measures import Choice
from erulab.data.questions import McQuestion, answer_row, place_of
from erulab.data.reading import Record, find_file, find_split, read_records
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.data.sources import Source
from erulab.data.stored_rows import StoredRows, hash_file, store_rows
from erulab.errors import DataError
from erulab.options import require
from erulab.registry import benchmarks

VERSION = 1  # of how files become rows: a change makes every key new
HUB_ID = "allenai/ai2_arc"
SCHEMA = '{"question": str, "choices": {"text": list[str], "label": list[str]}, "answerKey": str}'
# The form in which collections of evaluation tasks publish ARC; the query already begins with "Question: ".
QUERIES = '{"query": str, "choices": list[str], "gold": int}'


class Subset(Enum):
    easy = "easy"
    challenge = "challenge"


CONFIGS = {Subset.easy: "ARC-Easy", Subset.challenge: "ARC-Challenge"}


@dataclass
class ArcOptions:
    name: str = "arc"
    path: Optional[str] = HUB_ID  # hub id, or a folder: ARC-Easy/test-*.parquet, or arc_easy.jsonl
    subsets: list[Subset] = field(default_factory=lambda: list(Subset))

    def __post_init__(self) -> None:
        given = [subset.name for subset in self.subsets]
        fits = bool(given) and len(set(given)) == len(given)
        require(fits, "subsets", "easy, challenge or both, each once", f"[{','.join(given)}]")


@benchmarks.register("arc", ArcOptions, paper="arXiv:1803.05457", needs="ARC's questions: a folder, or the hub")
class Arc(FilesDataset):
    """ARC: 2,376 easy and 1,172 hard science questions, answered in words; chance is about 0.25."""

    version = {"arc": VERSION}

    def __init__(self, options: ArcOptions) -> None:
        super().__init__()
        self.options = options
        self._source = Source(options.path, "benchmark.arc.path", HUB_ID)

    def validate(self) -> None:
        folder = self._source.local()
        if folder is not None:
            for subset in self.options.subsets:
                self._find_files(folder, subset)

    def _read(self, cache: Path) -> Benchmark:
        folder = self._source.folder([f"{CONFIGS[subset]}/test*" for subset in self.options.subsets])
        suites = (
            Suite(
                f"arc_{subset.value}",
                Role.RETAIN,
                _subset_rows(subset, self._find_files(folder, subset), cache),
                Choice(True),
            )
            for subset in self.options.subsets
        )
        return check_suites(Benchmark("arc", tuple(suites)))

    def _find_files(self, folder: Path, subset: Subset) -> tuple[Path, ...]:
        file = find_file(folder, f"arc_{subset.value}")
        files = find_split(folder, CONFIGS[subset], "test") or (() if file is None else (file,))
        if not files:
            raise DataError(
                f"{folder} has no {CONFIGS[subset]}/test-*.parquet and no arc_{subset.value}.jsonl "
                f"(benchmark.arc.path); add it, or leave {subset.name} out of benchmark.arc.subsets"
            )
        return files


def _subset_rows(subset: Subset, files: Sequence[Path], cache: Path) -> StoredRows:
    content = [hash_file(file) for file in files]
    depends_on = {"arc": VERSION, "questions": questions.VERSION, "subset": subset.value}
    return store_rows(cache, {**depends_on, "files": content}, lambda notes: _read_arc_rows(subset, files))


def _read_arc_rows(subset: Subset, files: Sequence[Path]) -> Iterator[Row]:
    records = (record for file in files for record in read_records(file, SCHEMA))
    for index, record in enumerate(records):
        q = _question_of_query(record) if "query" in record.fields else _question_of_arc(record)
        yield answer_row(f"arc_{subset.value}/{index}", f"{q.text}\nAnswer:", q)


def _question_of_arc(record: Record) -> McQuestion:
    choices = record.inner("choices", SCHEMA)
    texts, labels = choices.texts("text", SCHEMA), choices.texts("label", SCHEMA)
    key = record.text("answerKey", SCHEMA)
    if len(texts) < 2 or len(texts) != len(labels):
        raise DataError(f"{record.where}: {len(texts)} texts and {len(labels)} labels of choices; expected {SCHEMA}")
    if key not in labels:
        raise DataError(f"{record.where}: answerKey {key!r} is none of the labels {', '.join(labels)}")
    return McQuestion(f"Question: {record.text('question', SCHEMA)}", texts, labels.index(key))


def _question_of_query(record: Record) -> McQuestion:
    choices = record.texts("choices", QUERIES)
    if len(choices) < 2:
        raise DataError(f"{record.where}: field 'choices' has {len(choices)} choices; expected {QUERIES}")
    return McQuestion(record.text("query", QUERIES), choices, place_of(record, "gold", len(choices), QUERIES))
