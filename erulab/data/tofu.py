"""TOFU (Maini et al. 2024): 200 fictitious authors of 20 questions each; the last 2, 10 or 20 are to be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Optional

from erulab.data.checks import check_benchmark
from erulab.data.from_files import FilesDataset
from erulab.data.measures import Answers, Separation, Texts
from erulab.data.phrasings import REFUSALS
from erulab.data.reading import Record, find_table, read_records
from erulab.data.rows import Benchmark, Role, Row, Suite, Truncate
from erulab.data.sources import Source
from erulab.data.stored_rows import StoredRows, hash_file, store_rows
from erulab.data.text_files import read_text_lines
from erulab.errors import ConfigError, DataError
from erulab.options import require_positive
from erulab.registry import benchmarks, datasets

VERSION = 1  # of how files become rows: a change makes every key new
HUB_ID = "locuslab/TOFU"
PLAIN = '{"question": str, "answer": str}'
PERTURBED = (
    '{"question": str, "answer": str, "paraphrased_question": str, "paraphrased_answer": str, '
    '"perturbed_answer": list[str]}'
)
CHOICE = '{"question": str, "answer": str, "perturbed_answer": list[str]}'
QUESTIONS_PER_AUTHOR = 20
REFUSAL_FILE = "idontknow.jsonl"  # plain text in spite of its name


class TofuSplit(Enum):
    forget01 = "forget01"
    forget05 = "forget05"
    forget10 = "forget10"

    @property
    def retain(self) -> str:
        """Name of the split with all other rows: retain99, retain95 or retain90."""
        return f"retain{100 - int(self.value.removeprefix('forget'))}"

    @property
    def holdout(self) -> str:
        """Name of the split with as many rows on authors of no other split: holdout01, holdout05 or holdout10."""
        return f"holdout{self.value.removeprefix('forget')}"


@dataclass
class TofuOptions:
    name: str = "tofu"
    path: Optional[str] = HUB_ID  # hub id, or a folder of TOFU's files
    split: TofuSplit = TofuSplit.forget01  # the forget split: 1, 5 or 10 % of the questions
    retain_rows: Optional[int] = None  # the first rows of the retain split, learned and rehearsed; null: all
    evaluated_rows: Optional[int] = None  # the first rows of each suite that are scored: 300 in TOFU's code; null: all
    max_length: Optional[int] = 512  # tokens of prompt and response
    truncate: Truncate = Truncate.error  # what to do with a prompt that leaves no room for a response
    allow_overlap: bool = False  # accept rows that are in two sets, with a note in the report

    def __post_init__(self) -> None:
        require_positive("retain_rows", self.retain_rows)
        require_positive("evaluated_rows", self.evaluated_rows)
        require_positive("max_length", self.max_length)


@datasets.register("tofu", TofuOptions, paper="arXiv:2401.06121", needs="TOFU's files: a folder, or the hub")
class Tofu(FilesDataset):
    """TOFU: forget 1, 5 or 10 % of 4,000 questions on fictitious authors; utility on others and the world."""

    version = {"tofu": VERSION}
    key = "dataset"  # config key of the options, for messages

    def __init__(self, options: TofuOptions) -> None:
        super().__init__()
        self.options = options
        self._source = Source(options.path, f"{self.key}.path", HUB_ID)

    def validate(self) -> None:
        folder = self._source.local()
        if folder is not None:
            for name in self._tables:
                self._find_file(folder, name)

    @property
    def _tables(self) -> tuple[str, ...]:
        split = self.options.split
        return (
            split.value,
            f"{split.value}_perturbed",
            split.retain,
            "retain_perturbed",
            "real_authors_perturbed",
            "world_facts_perturbed",
        )

    def _read(self, cache: Path) -> Benchmark:
        o = self.options
        folder = self._source.folder(("*.json", "*.jsonl", "*.parquet"))
        forget, forget_more, retain, retain_more, authors, world = (
            self._find_file(folder, name) for name in self._tables
        )

        def read_rows(name: str, make: Callable[[], Iterable[Row]], *files: Path) -> StoredRows:
            content = [hash_file(file) for file in files]
            return store_rows(cache, {"tofu": VERSION, "rows": name, "files": content}, lambda notes: make())

        every = read_rows("retain", lambda: _read_questions(retain, 0), retain)
        if o.retain_rows is not None and o.retain_rows > len(every):
            raise ConfigError(
                f"{self.key}.retain_rows must be at most {len(every)} (rows of {o.split.retain}), got {o.retain_rows}"
            )
        known = every[: o.retain_rows]
        # The forget split is the end of TOFU's full list, the retain split its beginning: a row's index in that list
        # names it in every split. (Its question does not: one occurs twice.)
        first = len(every)
        asked = read_rows(f"forget {first}", lambda: _read_forget(forget, forget_more, first), forget, forget_more)
        rephrased = read_rows(f"heldout {first}", lambda: _rephrase(asked, forget_more), forget, forget_more)
        kept = read_rows("kept", lambda: _add_perturbed(_read_questions(retain, 0), retain_more), retain, retain_more)
        suites = [
            Suite("forget", Role.FORGET, asked),
            Suite("heldout", Role.HELDOUT, rephrased),
            Suite("retain", Role.RETAIN, kept[: o.retain_rows], in_utility=True),
            *(
                Suite(
                    name,
                    Role.RETAIN,
                    read_rows(name, partial(_read_choices, name, file), file),
                    Answers("answer"),
                    in_utility=True,
                )
                for name, file in (("real_authors", authors), ("world_facts", world))
            ),
        ]
        published = find_table(folder, o.split.holdout)
        if published is not None:
            name = o.split.holdout
            holdout = Suite(
                "holdout", Role.UNSEEN, read_rows(name, partial(_read_unseen, name, published), published), Texts()
            )
        else:
            # The last retain rows: their authors are not among those the learned rows begin with.
            first_left = max(len(known), len(every) - len(asked))
            holdout = Suite("holdout_local", Role.UNSEEN, every[first_left:], Texts())
        summaries: tuple[Separation, ...] = ()
        if holdout.rows:
            suites += [Suite("mia_forget", Role.FORGET, asked, Texts()), holdout]
            summaries = (Separation("mia", "mia_forget", holdout.name),)
        refusals, notes = _read_refusals(folder)
        return check_benchmark(
            Benchmark(
                name="tofu",
                forget=asked,
                retain=known,
                target_rows=StoredRows.concatenate([asked, known]),
                oracle_rows=known,
                suites=tuple(_first_rows(suite, o.evaluated_rows) for suite in suites),
                summaries=summaries,
                refusals=refusals,
                max_length=o.max_length,
                truncate=o.truncate,
                notes=(*notes, *self._holdout_notes(holdout, max(1, len(every) - len(asked)))),
            ),
            key=self.key,
            allow_overlap=o.allow_overlap,
        )

    def _find_file(self, folder: Path, name: str) -> Path:
        file = find_table(folder, name)
        if file is None:
            raise DataError(
                f"{folder} has no {name}.json ({self.key}.path, {self.key}.split={self.options.split.value}); "
                f"TOFU needs {', '.join(self._tables)}"
            )
        return file

    def _holdout_notes(self, holdout: Suite, enough: int) -> tuple[str, ...]:
        """Notes what a reader must know about membership inference without the published holdout.

        Args:
            enough: `retain_rows` that leave as many rows as there are to forget.
        """
        if holdout.name == "holdout":
            return ()
        split = self.options.split
        if not holdout.rows:
            return (
                f"no {split.holdout}.json beside the data and no retain row that no model learns: no membership "
                f"inference; put {split.holdout}.json of {HUB_ID} there, or type {self.key}.retain_rows={enough}",
            )
        return (
            f"no {split.holdout}.json beside the data: membership inference (mia) uses holdout_local, the last "
            f"{len(holdout.rows)} retain rows, which no model learns; not comparable with figures on the "
            "published holdout",
        )


@benchmarks.register("tofu", TofuOptions, paper="arXiv:2401.06121", needs="TOFU's files: a folder, or the hub")
class TofuBenchmark(Tofu):
    """TOFU, measured in addition to the data set that is unlearned."""

    key = "benchmark.tofu"


def _read_questions(file: Path, first: int) -> Iterator[Row]:
    return (_tofu_row(record, index) for index, record in enumerate(read_records(file, PLAIN), start=first))


def _tofu_row(record: Record, index: int) -> Row:
    return Row(
        id=f"full/{index}",
        prompt=record.text("question", PLAIN),
        response=record.text("answer", PLAIN),
        fact=f"full/{index}",
        author=f"author/{index // QUESTIONS_PER_AUTHOR}",
    )


def _read_forget(forget: Path, perturbed: Path, first: int) -> Iterator[Row]:
    """Reads the forget rows, each with a paraphrase and wrong answers.

    Args:
        first: index of the first forget row in TOFU's full list.
    """
    counts = [sum(1 for _ in read_records(file, PLAIN)) for file in (forget, perturbed)]
    if counts[0] != counts[1]:
        raise DataError(f"{forget.stem} has {counts[0]} rows, {perturbed.stem} {counts[1]}")
    return _add_perturbed(_read_questions(forget, first), perturbed)


def _add_perturbed(rows: Iterable[Row], file: Path) -> Iterator[Row]:
    """Yields the rows that a _perturbed file has too, with its paraphrase and wrong answers; both are in one order.

    Raises:
        DataError: the files do not fit together.
    """
    for row, record in zip(rows, read_records(file, PERTURBED), strict=False):
        if (record.text("question", PLAIN), record.text("answer", PLAIN)) != (row.prompt, row.response):
            raise DataError(
                f"{record.where}: not the question and answer of row {row.id}; both files must be of one TOFU release"
            )
        paraphrase, wrong = record.text("paraphrased_answer", PERTURBED), record.texts("perturbed_answer", PERTURBED)
        yield replace(row, paraphrase=paraphrase, perturbed=wrong)


def _rephrase(rows: Iterable[Row], file: Path) -> Iterator[Row]:
    """Yields the same facts, asked in words that no model learned."""
    for row, record in zip(rows, read_records(file, PERTURBED), strict=True):
        yield replace(row, id=f"{row.id}/rephrased", prompt=record.text("paraphrased_question", PERTURBED))


def _read_choices(name: str, file: Path) -> Iterator[Row]:
    """Reads questions whose wrong answers are the options of a choice and the perturbed answers of the truth ratio."""
    for index, record in enumerate(read_records(file, CHOICE)):
        wrong = record.texts("perturbed_answer", CHOICE)
        prompt, response = record.text("question", CHOICE), record.text("answer", CHOICE)
        yield Row(f"{name}/{index}", prompt, response, perturbed=wrong, options=wrong, fact=f"{name}/{index}")


def _read_unseen(name: str, file: Path) -> Iterator[Row]:
    """Reads questions on authors that are in no other split."""
    for index, record in enumerate(read_records(file, PLAIN)):
        row_id = f"{name}/{index}"
        yield Row(row_id, record.text("question", PLAIN), record.text("answer", PLAIN), fact=row_id)


def _first_rows(suite: Suite, count: int | None) -> Suite:
    return suite if count is None or count >= len(suite.rows) else replace(suite, rows=suite.rows[:count])


def _read_refusals(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns TOFU's refusals, or erulab's where the file is missing (the hub lacks it), and a note that says so."""
    if (folder / REFUSAL_FILE).is_file():
        return read_text_lines(folder / REFUSAL_FILE), ()
    return REFUSALS, (f"no {REFUSAL_FILE} beside the data: refusals are erulab's own {len(REFUSALS)}, not TOFU's 100",)
