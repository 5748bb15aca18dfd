"""The user's own files: what to forget and what to keep, as questions, chats or texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from erulab.data.checks import check
from erulab.data.from_files import FilesDataset
from erulab.data.jsonl_rows import SCHEMA, USED, row_of
from erulab.data.measures import Answers, Separation, Texts
from erulab.data.reading import find_table, read_paragraphs, read_records, read_text_lines
from erulab.data.rows import Benchmark, Role, Row, Suite, Truncate
from erulab.data.sequences import Joined
from erulab.data.tables import RowTable, file_hash, row_table
from erulab.errors import ConfigError, DataError
from erulab.options import positive
from erulab.registry import datasets

VERSION = 3  # of how files become rows: a change makes every key new
PARTS = ("forget", "retain", "heldout", "utility", "holdout")
# Membership inference: how well a model tells texts it learned from texts it never saw.
MEMBERS, STRANGERS = "mia_forget", "mia_holdout"


@dataclass
class JsonlOptions:
    """A part not named by its own key is looked for in `path`: forget.jsonl, .jsonl.gz, .json, .parquet, .txt."""

    name: str = "jsonl"
    path: Optional[str] = None  # a folder with forget, retain, and if wanted heldout, utility, holdout, refusals.txt
    forget: Optional[str] = None  # what to forget
    retain: Optional[str] = None  # what to keep: learned, rehearsed and evaluated
    heldout: Optional[str] = None  # the forget facts in other words: only evaluated and attacked
    utility: Optional[str] = None  # what the base model knows anyway: only evaluated
    holdout: Optional[str] = None  # like the forget rows, but never learned: for membership inference
    refusals: Optional[str] = None  # plain text, one refusal a line, for idk and dpo
    max_length: Optional[int] = None  # tokens of prompt and response; null: the model's context
    truncate: Truncate = Truncate.error  # a prompt that leaves no room for a response
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        positive("max_length", self.max_length)


@datasets.register("jsonl", JsonlOptions, needs="dataset.path: a folder with forget.jsonl and retain.jsonl")
class JsonlFiles(FilesDataset):
    """Your own files: questions, multiple choice, chats or plain texts, with wrong answers where you have them."""

    version = {"jsonl": VERSION}

    def __init__(self, options: JsonlOptions) -> None:
        super().__init__()
        self.options = options

    def validate(self) -> None:
        for part in PARTS:
            self._file(part)
        self._refusal_file()

    def _read(self, cache: Path) -> Benchmark:
        self.validate()
        files = {part: file for part in PARTS if (file := self._file(part)) is not None}
        rows = {part: _table(part, file, cache) for part, file in files.items()}
        notes = [
            f"{files[part].name}: fields that erulab does not use: {', '.join(table.extra['unused'])}"
            for part, table in rows.items()
            if table.extra["unused"]
        ]
        # The few texts to choose a refusal from are kept in memory.
        refusals = dict.fromkeys(text for table in rows.values() for text in table.extra["refusals"])
        file = self._refusal_file()
        if file is not None:
            refusals.update(dict.fromkeys(read_text_lines(file)))
        suites = (
            ("forget", Role.FORGET, "paraphrase", False),
            ("heldout", Role.HELDOUT, "paraphrase", False),
            ("retain", Role.RETAIN, "paraphrase", True),
            ("utility", Role.RETAIN, "answer", True),
        )
        membership: tuple[Suite, ...] = ()
        if "holdout" in rows:
            membership = (
                Suite(MEMBERS, Role.FORGET, rows["forget"], Texts()),
                Suite(STRANGERS, Role.UNSEEN, rows["holdout"], Texts()),
            )
        benchmark = Benchmark(
            name="jsonl",
            forget=rows["forget"],
            retain=rows["retain"],
            target_rows=Joined([rows["forget"], rows["retain"]]),
            oracle_rows=rows["retain"],
            suites=(
                *(
                    Suite(part, role, rows[part], Answers(right), used)
                    for part, role, right, used in suites
                    if part in rows
                ),
                *membership,
            ),
            summaries=(Separation("mia", MEMBERS, STRANGERS),) if membership else (),
            refusals=tuple(refusals),
            max_length=self.options.max_length,
            truncate=self.options.truncate,
            notes=tuple(notes),
        )
        return check(benchmark, allow_overlap=self.options.allow_overlap)

    def _file(self, part: str) -> Path | None:
        """The file of a part; None for an optional part that is not there.

        Raises:
            ConfigError, DataError: not named, or not there.
        """
        named, folder = getattr(self.options, part), self.options.path
        if named is not None:
            if not Path(named).is_file():
                raise DataError(f"dataset.{part}={named} is no file")
            return Path(named)
        if folder is not None and not Path(folder).is_dir():
            raise DataError(f"dataset.path={folder} is no folder; it must hold forget.jsonl and retain.jsonl")
        file = None if folder is None else _found(Path(folder), part)
        if file is None and part in ("forget", "retain"):
            if folder is None:
                raise ConfigError(
                    f"dataset=jsonl needs {part} rows; type dataset.path=<folder with forget.jsonl, retain.jsonl> "
                    f"or dataset.{part}=<file>"
                )
            raise DataError(
                f"{folder} has no {part}.jsonl or {part}.txt (dataset.path); add it or type dataset.{part}=<file>"
            )
        return file

    def _refusal_file(self) -> Path | None:
        if self.options.refusals is not None:
            if not Path(self.options.refusals).is_file():
                raise DataError(f"dataset.refusals={self.options.refusals} is no file")
            return Path(self.options.refusals)
        file = None if self.options.path is None else Path(self.options.path) / "refusals.txt"
        return file if file is not None and file.is_file() else None


def _found(folder: Path, part: str) -> Path | None:
    """The file of a part in a folder.

    Raises:
        DataError: there are rows and a text of that name.
    """
    table, text = find_table(folder, part), folder / f"{part}.txt"
    if not text.is_file():
        return table
    if table is not None:
        raise DataError(
            f"{folder} has both {table.name} and {text.name}; remove one, or type which: dataset.{part}=<file>"
        )
    return text


def _table(part: str, file: Path, cache: Path) -> RowTable:
    """The rows of a file; beside them, its refusals and the fields that are not used."""
    text = file.suffix == ".txt"

    def rows(extra: dict[str, Any]) -> Iterator[Row]:
        unused: set[str] = set()
        refusals: dict[str, None] = {}
        records = read_paragraphs(file) if text else read_records(file, SCHEMA)
        for number, record in enumerate(records, start=1):
            unused |= record.fields.keys() - USED
            row = row_of(part, number, record)
            if row.refusal is not None:
                refusals[row.refusal] = None
            yield row
        extra |= {"unused": sorted(unused), "refusals": list(refusals)}

    return row_table(cache, {"jsonl": VERSION, "part": part, "text": text, "file": file_hash(file)}, rows)
