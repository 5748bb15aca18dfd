"""The user's own files: what to forget and what to keep, as questions, conversations or texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from erulab.data.from_files import FilesDataset
from erulab.data.own_parts import PARTS, VERSION, benchmark_of_parts, store_part
from erulab.data.reading import find_table, read_paragraphs, read_records
from erulab.data.row_forms import SCHEMA
from erulab.data.rows import Benchmark, Truncate
from erulab.data.stored_rows import StoredRows, hash_file
from erulab.data.text_files import read_text_lines
from erulab.errors import ConfigError, DataError
from erulab.options import require_positive
from erulab.registry import datasets


@dataclass
class JsonlOptions:
    """A part not named by its own key is looked for in `path`: forget.jsonl, .jsonl.gz, .json, .parquet, .csv, .txt."""

    name: str = "jsonl"
    path: Optional[str] = None  # a folder with forget, retain, and if wanted heldout, utility, holdout, refusals.txt
    forget: Optional[str] = None  # what to forget
    retain: Optional[str] = None  # what to keep: learned, rehearsed and evaluated
    heldout: Optional[str] = None  # the forget facts in other words: only evaluated and attacked
    utility: Optional[str] = None  # what the base model knows anyway: only evaluated
    holdout: Optional[str] = None  # like the forget rows, but never learned: for membership inference
    refusals: Optional[str] = None  # plain text, one refusal per line, for idk and dpo
    max_length: Optional[int] = None  # tokens of prompt and response; null: the model's context
    truncate: Truncate = Truncate.error  # what to do with a prompt that leaves no room for a response
    allow_overlap: bool = False  # accept rows that are in two sets, with a note in the report

    def __post_init__(self) -> None:
        require_positive("max_length", self.max_length)


@datasets.register("jsonl", JsonlOptions, needs="dataset.path: a folder with forget.jsonl and retain.jsonl")
class JsonlFiles(FilesDataset):
    """Your own files (JSON lines, csv, parquet, text): questions, choices, conversations or plain texts."""

    version = {"jsonl": VERSION}

    def __init__(self, options: JsonlOptions) -> None:
        super().__init__()
        self.options = options

    def validate(self) -> None:
        for part in PARTS:
            self._find_part(part)
        self._find_refusals()

    def _read(self, cache: Path) -> Benchmark:
        files = {part: file for part in PARTS if (file := self._find_part(part)) is not None}
        refusals = self._find_refusals()
        return benchmark_of_parts(
            "jsonl",
            {part: _store_file(part, file, cache) for part, file in files.items()},
            {part: file.name for part, file in files.items()},
            refusals=() if refusals is None else read_text_lines(refusals),
            max_length=self.options.max_length,
            truncate=self.options.truncate,
            allow_overlap=self.options.allow_overlap,
        )

    def _find_part(self, part: str) -> Path | None:
        """Finds the file of a part; None for an optional part that is not there.

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
        file = None if folder is None else _find_in_folder(Path(folder), part)
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

    def _find_refusals(self) -> Path | None:
        if self.options.refusals is not None:
            if not Path(self.options.refusals).is_file():
                raise DataError(f"dataset.refusals={self.options.refusals} is no file")
            return Path(self.options.refusals)
        file = None if self.options.path is None else Path(self.options.path) / "refusals.txt"
        return file if file is not None and file.is_file() else None


def _find_in_folder(folder: Path, part: str) -> Path | None:
    """Finds the file of a part in a folder.

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


def _store_file(part: str, file: Path, cache: Path) -> StoredRows:
    # The same bytes give other rows as text, csv or JSON.
    kind = next((suffix for suffix in (".txt", ".csv") if suffix in file.suffixes[-2:]), "")
    records = read_paragraphs(file) if kind == ".txt" else read_records(file, SCHEMA)
    return store_part(cache, part, {"kind": kind, "file": hash_file(file)}, records)
